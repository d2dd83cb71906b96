package tier_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/s3server"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/kvbm/tiertest"
	"github.com/dynamo-go/dynamo/transfer/s3"
)

var access = s3server.Credentials{KeyID: "key", Secret: "secret", Region: "us-east-1"}

// bucketOf opens the store in the bucket of a server, at an address or without network.
func bucketOf(t testing.TB, s *s3server.Server, address string) tier.Store {
	t.Helper()
	c := s3.DefaultConfig()
	c.Endpoint, c.Bucket, c.Prefix, c.KeyID, c.Secret = address, "kv-cache", "kv-123", access.KeyID, access.Secret
	if address == "" {
		c.Endpoint, c.Transport = "http://store.test", s.Transport()
	}
	b, err := s3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tier.NewBucket(b)
}

func TestBucket(t *testing.T) {
	s := s3server.New("kv-cache", access)
	h := httptest.NewServer(s)
	defer h.Close()
	tiertest.Run(t, tiertest.Subject{Open: func(t *testing.T) tier.Store { return bucketOf(t, s, h.URL) }, FrameBytes: 8192, Slots: 20})
	for _, k := range s.Keys() {
		if !strings.HasPrefix(k, "kv-123/") || len(k) != len("kv-123/ab/")+32 {
			t.Errorf("an object is named %q", k)
		}
	}
}

// TestFind asks for sequences of any length, of which any number of blocks is there.
func TestFind(t *testing.T) {
	s := s3server.New("kv-cache", access)
	b := bucketOf(t, s, "")
	keys := make([]dynamo.ContentKey, 700)
	for i := range keys {
		keys[i][0], keys[i][1], keys[i][15] = byte(i), byte(i>>8), 1
	}
	put := 0
	for _, there := range []int{0, 1, 2, 15, 16, 17, 33, 100, 256, 699, 700} {
		for ; put < there; put++ {
			if err := b.Put(t.Context(), tier.Ref{TierBlock: kvbm.TierBlock{Key: keys[put]}}, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		before := s.Requests()
		for _, n := range []int{0, 1, 16, 17, 99, 700} {
			if got, err := b.(tier.Finder).Find(t.Context(), keys[:n]); got != min(n, there) || err != nil {
				t.Errorf("of %d keys, of which %d are there, %d are found, %v", n, there, got, err)
			}
		}
		if asked := s.Requests() - before; asked > 6*3*16 {
			t.Errorf("%d requests", asked)
		}
	}
}

// remote has a bucket as the only tier.
func remote(t testing.TB, s *s3server.Server) tier.Config {
	c := config(t, 0, 0, 40)
	c.RemoteDir, c.Remote = "", bucketOf(t, s, "")
	return c
}

// TestLies has an object store answer wrongly: no wrong byte comes to the engine, every
// answer counts as a miss, and the store is used again afterwards.
func TestLies(t *testing.T) {
	for _, fault := range []s3server.Fault{s3server.Flipped, s3server.OtherObject, s3server.Shorter, s3server.Stale} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := s3server.New("kv-cache", access)
				m, _ := run(t, remote(t, s))
				synctest.Wait()
				const blocks = 8
				q := sequence(t, m, 0, blocks)
				offer(m, q)
				waitIdle(t, m)
				if len(s.Keys()) != blocks || bring(t, m, q) != blocks {
					t.Fatalf("the store has %d of %d blocks", len(s.Keys()), blocks)
				}
				var lies atomic.Uint64
				s.Inject(func(r *http.Request) s3server.Fault {
					if r.Method == http.MethodGet {
						lies.Add(1)
						return fault
					}
					return ""
				})
				for i := range blocks {
					if load(t, m, q, i, 1) {
						t.Errorf("block %d came from a store that lies", i)
					}
				}
				waitIdle(t, m)
				st := m.Stats().Tiers[dynamo.TierRemote]
				if n := lies.Load(); n < 3 || st.Corrupt+st.Missing != n || st.Missing > 0 != (fault == s3server.Stale) {
					t.Errorf("%d lies, known are %d corrupt and %d missing", n, st.Corrupt, st.Missing)
				}
				s.Inject(nil)
				waitFor(t, func() bool {
					q := sequence(t, m, 7, 4)
					offer(m, q)
					waitIdle(t, m)
					return bring(t, m, q) == 4
				})
			})
		})
	}
}

// TestLiesTogether has every read of one load be a lie: each is found, although the first
// one ends the load.
func TestLiesTogether(t *testing.T) {
	for _, fault := range []s3server.Fault{s3server.Flipped, s3server.OtherObject, s3server.Shorter, s3server.Stale} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := s3server.New("kv-cache", access)
				c := remote(t, s)
				c.Tiers.Remote.Workers = 8
				c.Geometry.Groups = tier.Groups{1000, 2000, 3000, 5000} // one flipped bit is in one of them
				m, _ := run(t, c)
				synctest.Wait()
				const blocks = 16
				q := sequence(t, m, 0, blocks)
				offer(m, q)
				waitIdle(t, m)
				var lies atomic.Uint64
				var started sync.WaitGroup
				started.Add(8)
				s.Inject(func(r *http.Request) s3server.Fault {
					if r.Method != http.MethodGet {
						return ""
					}
					if lies.Add(1) <= 8 { // the first ones are read at once
						started.Done()
						started.Wait()
					}
					return fault
				})
				if load(t, m, q, 0, blocks) {
					t.Error("blocks came from a store that lies")
				}
				waitIdle(t, m)
				st := m.Stats().Tiers[dynamo.TierRemote]
				if n := lies.Load(); n < 8 || st.Corrupt+st.Missing != n {
					t.Errorf("%d lies, known are %d corrupt and %d missing", n, st.Corrupt, st.Missing)
				}
			})
		})
	}
}

// TestPutAgain offers a block again while the wrong one is being deleted, which takes long:
// the new one is not deleted in its place.
func TestPutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := s3server.New("kv-cache", access)
		m, _ := run(t, remote(t, s))
		synctest.Wait()
		q := sequence(t, m, 0, 4)
		offer(m, q)
		waitIdle(t, m)
		s.Inject(func(r *http.Request) s3server.Fault {
			switch r.Method {
			case http.MethodGet:
				return s3server.Flipped
			case http.MethodDelete:
				time.Sleep(time.Second)
			}
			return ""
		})
		if load(t, m, q, 2, 1) {
			t.Error("a lie came")
		}
		s.Inject(nil)
		for range 20 {
			offer(m, q)
			time.Sleep(100 * time.Millisecond)
		}
		if n := bring(t, m, q); n != 4 {
			t.Errorf("%d of 4 blocks came", n)
		}
		if st := m.Stats().Tiers[dynamo.TierRemote]; st.Corrupt != 1 || st.Missing != 0 {
			t.Errorf("%d corrupt, %d missing; want 1 and 0", st.Corrupt, st.Missing)
		}
	})
}

// TestStaleList has an object store list what is gone and not what is there: what is not
// there is a miss, and the rest is found by asking for it.
func TestStaleList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := s3server.New("kv-cache", access)
		m, stop := run(t, remote(t, s))
		synctest.Wait()
		const blocks = 12
		offer(m, sequence(t, m, 0, blocks))
		waitIdle(t, m)
		stop()
		s.Inject(func(r *http.Request) s3server.Fault {
			if r.URL.Query().Has("list-type") {
				return s3server.StaleList
			}
			return ""
		})
		m, _ = run(t, remote(t, s))
		synctest.Wait()
		if n := m.Stats().Tiers[dynamo.TierRemote].Held; n < blocks/2 || n == 0 {
			t.Errorf("%d blocks are listed", n)
		}
		q := sequence(t, m, 0, blocks)
		if n := m.Plan(q, 0, blocks).Found; n == blocks {
			t.Error("the test is too weak")
		}
		waitFor(t, func() bool { m.Probe(q); return bring(t, m, q) == blocks })
		if v, err := m.Verify(t.Context(), dynamo.TierRemote); err != nil || v.Corrupt > 0 || v.Checked-v.Missing != blocks {
			t.Errorf("verify: %+v, %v", v, err)
		}
	})
}

// TestStartWithout has an object store be down, or refuse, when the tiers start: they
// start, say why, and use it once it is there.
func TestStartWithout(t *testing.T) {
	for fault, want := range map[s3server.Fault]string{
		s3server.Broken: "did not serve", s3server.Hang: "did not serve", s3server.Wait: "did not serve", s3server.Denied: "must be let",
		s3server.Skewed: "clock", s3server.Redirected: "eu-other-1",
	} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := s3server.New("kv-cache", access)
				s.Inject(func(*http.Request) s3server.Fault { return fault })
				c := remote(t, s)
				var logs bytes.Buffer
				c.Logger = slog.New(slog.NewTextHandler(&logs, nil))
				m, stop := run(t, c)
				<-m.Ready()
				q := sequence(t, m, 0, 4)
				m.Probe(q)
				for range 5 {
					offer(m, q)
					waitIdle(t, m)
				}
				time.Sleep(time.Minute)
				s.Inject(nil)
				waitFor(t, func() bool { offer(m, q); waitIdle(t, m); return bring(t, m, q) == 4 })
				stop()
				if text := logs.String(); !contains(text, "remote") || !contains(text, want) {
					t.Errorf("logged, without …%s…:\n%s", want, text)
				}
			})
		})
	}
}

// TestOutage has an object store fail altogether for a while: blocks are computed, the
// store is spared, and used again when it is back.
func TestOutage(t *testing.T) {
	for _, fault := range []s3server.Fault{s3server.SlowDown, s3server.Wait, s3server.Broken, s3server.Denied, s3server.Skewed, s3server.Redirected, s3server.Hang} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := s3server.New("kv-cache", access)
				m, _ := run(t, remote(t, s))
				synctest.Wait()
				q := sequence(t, m, 0, 8)
				offer(m, q)
				waitIdle(t, m)
				s.Inject(func(*http.Request) s3server.Fault { return fault })
				before := s.Requests()
				for u := range 50 {
					for i := range 8 {
						load(t, m, q, i, 1)
					}
					offer(m, sequence(t, m, u, 8))
					waitIdle(t, m)
				}
				if asked := s.Requests() - before; asked > 400 {
					t.Errorf("a store that is down was asked %d times", asked)
				}
				s.Inject(nil)
				waitFor(t, func() bool {
					q := sequence(t, m, 99, 4)
					offer(m, q)
					waitIdle(t, m)
					return bring(t, m, q) == 4
				})
			})
		})
	}
}

// TestInstances has one instance use what another has put, since it was started.
func TestInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := s3server.New("kv-cache", access)
		one, _ := run(t, remote(t, s))
		two, _ := run(t, remote(t, s))
		synctest.Wait()
		const blocks = 20
		offer(one, sequence(t, one, 1, blocks))
		waitIdle(t, one)
		q := sequence(t, two, 1, blocks)
		two.Probe(q)
		if n := bring(t, two, q); n != blocks {
			t.Errorf("%d of %d blocks came", n, blocks)
		}
		before := bytes.Clone(s.Object(s.Keys()[3]))
		offer(two, q)
		waitIdle(t, two)
		if !bytes.Equal(s.Object(s.Keys()[3]), before) {
			t.Error("an object was replaced")
		}
	})
}
