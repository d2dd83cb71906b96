package tier_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// mount makes a file system of so many bytes, in memory, and returns where it is. Who may
// not do that is no reason to fail.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			t.Skipf("only root may make a file system: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // a test may have done it
	return dir
}

// places are tiers in a folder, by name.
var places = map[string]struct {
	at     dynamo.Tier
	config func(t *testing.T, dir string) tier.Config
}{
	"disk": {dynamo.TierDisk, func(t *testing.T, dir string) tier.Config {
		c := config(t, 0, 200, 0)
		c.DiskDir = filepath.Join(dir, "kv")
		return c
	}},
	"folder": {dynamo.TierRemote, func(t *testing.T, dir string) tier.Config {
		c := config(t, 0, 0, 200)
		c.RemoteDir = filepath.Join(dir, "kv")
		return c
	}},
}

// TestFullDisk has a real file system fill up under a tier: what is there is served all
// the time, what is new is computed, and kept again when there is room.
func TestFullDisk(t *testing.T) {
	for name, p := range places {
		t.Run(name, func(t *testing.T) {
			dir := mount(t, "1m")
			ballast := filepath.Join(dir, "ballast")
			write(t, ballast, make([]byte, 400<<10))
			synctest.Test(t, func(t *testing.T) { // rests take no time
				m, stop := run(t, p.config(t, dir))
				synctest.Wait()
				const users, blocks = 16, 8
				full := func() bool { return m.Stats().Tiers[p.at].ReadOnly }
				for u := 0; u < users && !full(); u++ {
					offer(m, sequence(t, m, u, blocks))
					waitIdle(t, m)
				}
				st := m.Stats().Tiers[p.at]
				if !st.ReadOnly || st.Unwritten == 0 || st.Down || st.Held < 20 {
					t.Errorf("the disk is full, and of %d blocks %d are kept, %d could not be written; read-only %v, down %v", users*blocks, st.Held, st.Unwritten, st.ReadOnly, st.Down)
				}
				for range 20 {
					offer(m, sequence(t, m, 90, blocks))
					if got := bring(t, m, sequence(t, m, 0, blocks)); got != blocks {
						t.Fatalf("%d of %d blocks come from a disk that is full", got, blocks)
					}
				}
				if err := os.Remove(ballast); err != nil {
					t.Fatal(err)
				}
				waitFor(t, func() bool {
					q := sequence(t, m, 99, 4)
					offer(m, q)
					waitIdle(t, m)
					return bring(t, m, q) == 4
				})
				held := m.Stats().Tiers[p.at].Held
				stop()
				if left, _ := filepath.Glob(filepath.Join(dir, "kv", "*", "part-*")); len(left) > 0 {
					t.Errorf("%d files are left half written", len(left))
				}
				m, _ = run(t, p.config(t, dir))
				waitFor(t, func() bool { return m.Stats().Tiers[p.at].Held == held })
				for u := range users {
					bring(t, m, sequence(t, m, u, blocks)) // compares the bytes
				}
				if v, err := m.Verify(t.Context(), p.at); err != nil || v.Bad() > 0 {
					t.Errorf("after a restart: %+v, %v", v, err)
				}
			})
		})
	}
}

// TestFullList has the list of slots alone lie on a file system that is full: blocks that
// cannot be noted are not kept, and what is found again is right.
func TestFullList(t *testing.T) {
	small := mount(t, "4k")
	c := places["disk"].config(t, t.TempDir())
	if err := errors.Join(os.Mkdir(c.DiskDir, 0o700), os.Symlink(filepath.Join(small, "slots"), filepath.Join(c.DiskDir, "slots"))); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m, stop := run(t, c)
		synctest.Wait()
		for u := range 10 {
			offer(m, sequence(t, m, u, 8))
			waitIdle(t, m)
		}
		st := m.Stats().Tiers[dynamo.TierDisk]
		const room = 4096/128 - 1
		if st.Held != room || st.Unwritten == 0 {
			t.Errorf("%d blocks are kept, %d could not be; there is room for %d", st.Held, st.Unwritten, room)
		}
		stop()
		m, _ = run(t, c)
		synctest.Wait()
		if v, err := m.Verify(t.Context(), dynamo.TierDisk); err != nil || v.Checked != room || v.Bad() > 0 {
			t.Errorf("after a restart: %+v, %v", v, err)
		}
	})
}

// TestBadFolder has tiers begin in folders that do not let them: the error says why, and
// which flag to change.
func TestBadFolder(t *testing.T) {
	for name, p := range places {
		flag := map[string]string{"disk": "--kvbm-disk-dir", "folder": "--kvbm-remote"}[name]
		for _, bad := range []struct {
			name, want string
			make       func(t *testing.T) string
		}{
			{"read-only", "read-only", func(t *testing.T) string {
				dir := mount(t, "64k")
				if err := unix.Mount("none", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
					t.Fatal(err)
				}
				return dir
			}},
			{"full", "full", func(t *testing.T) string {
				return mount(t, "4k,nr_inodes=1") // without a folder more it has no room
			}},
			{"a file", "not a directory", func(t *testing.T) string {
				path := filepath.Join(t.TempDir(), "file")
				write(t, path, nil)
				return path
			}},
		} {
			t.Run(name+" "+bad.name, func(t *testing.T) {
				m, err := tier.New(p.config(t, bad.make(t)))
				if err == nil {
					t.Fatal(m.Close())
				}
				if !contains(err.Error(), bad.want) || bad.name != "a file" && !contains(err.Error(), flag) {
					t.Errorf("got %v, want …%s… and %s", err, bad.want, flag)
				}
			})
		}
	}
}

// TestVanished takes a file system away under a tier, and its files: nothing wrong comes,
// nothing hangs, and what is new is kept again when it is back.
func TestVanished(t *testing.T) {
	for name, p := range places {
		for _, how := range []string{"removed", "unmounted"} {
			t.Run(name+" "+how, func(t *testing.T) {
				dir := mount(t, "2m")
				synctest.Test(t, func(t *testing.T) {
					m, _ := run(t, p.config(t, dir))
					synctest.Wait()
					q := sequence(t, m, 0, 8)
					offer(m, q)
					waitIdle(t, m)
					if got := bring(t, m, q); got != 8 {
						t.Fatalf("%d of 8 blocks are kept", got)
					}
					take := func() error { return os.RemoveAll(filepath.Join(dir, "kv")) }
					if how == "unmounted" {
						take = func() error { return unix.Unmount(dir, unix.MNT_DETACH) }
					}
					if err := take(); err != nil {
						t.Fatal(err)
					}
					came := 0
					for i := range 8 {
						if load(t, m, q, i, 1) {
							came++
						}
						waitIdle(t, m)
					}
					// Files that are open stay, and those that are opened each time are gone.
					if want := map[string]int{"disk": 8, "folder": 0}[name]; came != want {
						t.Errorf("%d blocks come, want %d", came, want)
					}
					for u := range 4 {
						offer(m, sequence(t, m, u, 8))
						waitIdle(t, m)
					}
					if st := m.Stats().Tiers[p.at]; (st.Unwritten > 0) != (name == "folder") {
						t.Errorf("%d blocks could not be written", st.Unwritten)
					}
					if err := os.MkdirAll(filepath.Join(dir, "kv"), 0o700); err != nil {
						t.Fatal(err)
					}
					waitFor(t, func() bool {
						q := sequence(t, m, 9, 4)
						offer(m, q)
						waitIdle(t, m)
						return bring(t, m, q) == 4
					})
				})
			})
		}
	}
}
