package node

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// keeping is a role with a snapshot file.
func keeping(role, path string) func(*Config) {
	return func(c *Config) {
		c.Role = role
		c.Cluster.Routing.Mode, c.Cluster.Routing.Snapshot = "kv", path
	}
}

// sample reads a metric of a host.
func (b *bubble) sample(host, name string) string {
	b.t.Helper()
	_, text := b.get(host, "/metrics")
	for line := range strings.Lines(text) {
		if v, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// A frontend, or router, that is stopped and started again knows what the workers hold
// without asking them for all of it.
func TestRouterSnapshot(t *testing.T) {
	for role, host := range map[string]string{RoleFrontend: "front", RoleRouter: "router"} {
		path := filepath.Join(t.TempDir(), "index")
		inBubble(t, func(t *testing.T, b *bubble) {
			b.start("other", func(c *Config) { c.Cluster.Routing.Mode = "kv" })
			p := b.start(host, keeping(role, path))
			for _, w := range []string{"w1", "w2", "w3"} {
				b.start(w, mocking)
			}
			b.awaitModels("other", "m")
			for i := range 12 {
				b.complete("other", "m", strings.Repeat("a prompt of some length. ", 4+i%3)+strings.Repeat("x", 40*i), 5)
			}
			blocks := func(host string) string {
				_, text := b.get(host, "/v1/router")
				_, text, _ = strings.Cut(text, `"index":{`)
				text, _, _ = strings.Cut(text, `,"bytes"`)
				return text
			}
			b.until("the router knows what the other knows", func() bool {
				n := blocks(host)
				return strings.Contains(n, `"blocks":`) && !strings.Contains(n, `"blocks":0`) && n[strings.Index(n, "blocks"):] == blocks("other")[strings.Index(blocks("other"), "blocks"):]
			})
			time.Sleep(10 * time.Second) // expectations end
			want := blocks(host)
			_, text := b.get(host, "/v1/router")
			silent := strings.Count(text, `"cache":"exact","blocks":0`) // they have no event to go on from
			if silent > 2 {
				t.Fatalf("nobody holds anything: %s", text)
			}
			p.end()
			if !b.log.holds("snapshot of the router written") {
				t.Error("no snapshot was written at the stop")
			}
			p = b.start(host, keeping(role, path))
			b.until("the workers are followed", func() bool { _, text := b.get(host, "/v1/router"); return strings.Count(text, `"state":"up"`) == 3 })
			time.Sleep(100 * time.Millisecond)
			if got := blocks(host); got != want {
				t.Errorf("%s: begun again with %s, want %s", role, got, want)
			}
			if n := b.sample(host, `dynamo_event_resets_total{topic="kv"}`); n != strconv.Itoa(silent) {
				t.Errorf("%s: %s caches were begun anew, want the %d that hold nothing", role, n, silent)
			}
			time.Sleep(2 * time.Minute)
			if _, text := b.get(host, "/v1/router"); strings.Count(text, `"cache":"exact"`) != 3 {
				t.Errorf("%s: after two minutes: %s", role, text)
			}
			// While it runs, the file is written again.
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: while it runs: %v", role, err)
			}
			p.end()
		})
		if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", role, left, err)
		}
	}
}

// A file that cannot be used costs one warning, and the workers are asked.
func TestRouterSnapshotDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	inBubble(t, func(t *testing.T, b *bubble) {
		p := b.start("front", keeping(RoleFrontend, path))
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("before anything is known: %v", err)
		}
		b.start("w1", mocking)
		b.awaitModels("front", "m")
		prompt := strings.Repeat("a prompt of some length. ", 10)
		b.complete("front", "m", prompt, 5)
		time.Sleep(time.Second)
		p.end()
		whole, err := os.ReadFile(path)
		if err != nil || len(whole) < 200 {
			t.Fatalf("%d bytes, %v", len(whole), err)
		}
		for name, c := range map[string]struct {
			file []byte
			word string
		}{
			"cut":     {whole[:len(whole)/2], "cut short"},
			"changed": {append(bytes.Clone(whole[:len(whole)-1]), 99), "checksum"},
			"empty":   {nil, "cut short"},
			"other":   {[]byte(strings.Repeat("nonsense ", 10)), "no snapshot"},
		} {
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			b.log.forget()
			p := b.start("front", keeping(RoleFrontend, path))
			b.awaitModels("front", "m")
			if status, text := b.complete("front", "m", prompt, 5); status != 200 {
				t.Errorf("%s: %d %s", name, status, text)
			}
			if !b.log.holds("level=WARN", "the snapshot of the router is not used", c.word) {
				t.Errorf("%s: the log does not say so", name)
			}
			p.end()
			if again, err := os.ReadFile(path); err != nil || len(again) < 200 {
				t.Errorf("%s: not written again: %d bytes, %v", name, len(again), err)
			}
		}
	})
}

// Workers that do not come back are waited for, with the file as it is, and then dropped.
func TestRouterSnapshotOfTheGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	inBubble(t, func(t *testing.T, b *bubble) {
		p := b.start("front", keeping(RoleFrontend, path))
		w := b.start("w1", mocking)
		b.awaitModels("front", "m")
		b.complete("front", "m", strings.Repeat("a prompt of some length. ", 10), 5)
		time.Sleep(time.Second)
		p.end()
		w.end()
		first, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p = b.start("front", func(c *Config) {
			keeping(RoleFrontend, path)(c)
			c.Cluster.Routing.SnapshotEvery = 5 * time.Second
		})
		time.Sleep(30 * time.Second)
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, first) {
			t.Errorf("the file has been replaced by %d bytes, %v", len(again), err)
		}
		p.end()
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, first) {
			t.Errorf("while a worker is awaited the file has been replaced by %d bytes, %v", len(again), err)
		}
		p = b.start("front", keeping(RoleFrontend, path))
		time.Sleep(3 * time.Minute)
		if !b.log.holds("have not come back", "workers=1") {
			t.Error("the log does not say who has not come back")
		}
		p.end()
		if again, err := os.ReadFile(path); err != nil || len(again) >= len(first) {
			t.Errorf("afterwards the file has %d bytes, %v, and had %d", len(again), err, len(first))
		}
	})
}

// What --router-snapshot and --router-snapshot-secs cannot be.
func TestSnapshotFlags(t *testing.T) {
	for _, c := range []struct {
		word string
		edit func(*Config)
	}{
		{"--router-snapshot-secs is 1s", func(c *Config) { c.Cluster.Routing.SnapshotEvery = time.Second }},
		{"--router-snapshot-secs is 48h", func(c *Config) { c.Cluster.Routing.SnapshotEvery = 48 * time.Hour }},
		{"the folder of the file must be there", func(c *Config) { c.Cluster.Routing.Snapshot = "/nowhere/at/all/index" }},
		{"is for dynamo frontend", func(c *Config) { c.Role, c.Cluster.Routing.Snapshot = RoleServe, "index" }},
	} {
		cfg := DefaultConfig()
		cfg.Role = RoleFrontend
		c.edit(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.word) {
			t.Errorf("got %v, want %q", err, c.word)
		}
	}
}
