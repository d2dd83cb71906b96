package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/s3server"
	"github.com/dynamo-go/dynamo/transfer/s3"
)

var access = s3server.Credentials{KeyID: "AKIDEXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Region: "eu-test-1", Session: "session+/="}

func config(endpoint string) s3.Config {
	c := s3.DefaultConfig()
	c.Endpoint, c.Bucket, c.Prefix = endpoint, "kv-cache", "/team a/ü/"
	c.KeyID, c.Secret, c.Region, c.Session = access.KeyID, access.Secret, access.Region, access.Session
	return c
}

// open runs a server and opens its bucket over the network.
func open(t testing.TB) (*s3.Bucket, *s3server.Server) {
	t.Helper()
	s := s3server.New("kv-cache", access)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	b, err := s3.New(config(h.URL))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, s
}

// within opens a bucket of a server without a network, for bubbles.
func within(t testing.TB, s *s3server.Server, logs *slog.Logger) *s3.Bucket {
	t.Helper()
	c := config("http://store.test")
	c.Transport, c.Logger = s.Transport(), logs
	b, err := s3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBucket(t *testing.T) {
	b, s := open(t)
	ctx := t.Context()
	data := []byte("0123456789")
	if err := b.Put(ctx, "a b/ü+%", data); err != nil {
		t.Fatal(err)
	}
	if got := s.Object("team a/ü/a b/ü+%"); !bytes.Equal(got, data) {
		t.Errorf("the store has %q under %q", got, s.Keys())
	}
	for _, c := range []struct {
		offset, n int64
		want      string
		kind      dynamo.Kind
	}{{0, 10, "0123456789", 0}, {0, 3, "012", 0}, {7, 3, "789", 0}, {0, 11, "", dynamo.KindCorrupt}, {8, 3, "", dynamo.KindCorrupt}, {10, 1, "", dynamo.KindCorrupt}, {50, 5, "", dynamo.KindCorrupt}} {
		got := make([]byte, c.n)
		err := b.Get(ctx, "a b/ü+%", got, c.offset)
		if c.want != "" && (err != nil || string(got) != c.want) || c.want == "" && (err == nil || dynamo.KindOf(err) != c.kind) {
			t.Errorf("%d bytes from %d: %q, %v; want %q", c.n, c.offset, got, err, c.want)
		}
	}
	if err := b.PutNew(ctx, "a b/ü+%", []byte("other")); err != nil || !bytes.Equal(s.Object("team a/ü/a b/ü+%"), data) {
		t.Errorf("a put of what is there: %v, and it has become %q", err, s.Object("team a/ü/a b/ü+%"))
	}
	if err := b.PutNew(ctx, "new", nil); err != nil {
		t.Error(err)
	}
	if there, err := b.Has(ctx, "new"); !there || err != nil {
		t.Errorf("%t, %v", there, err)
	}
	for range 2 {
		if err := b.Delete(ctx, "new"); err != nil {
			t.Error(err)
		}
	}
	if there, err := b.Has(ctx, "new"); there || err != nil {
		t.Errorf("deleted: %t, %v", there, err)
	}
	if err := b.Get(ctx, "new", make([]byte, 1), 0); dynamo.KindOf(err) != dynamo.KindNotFound {
		t.Errorf("get of what is not there: %v", err)
	}
	for _, name := range []string{"", strings.Repeat("x", s3.MaxKeyBytes)} {
		if err := b.Put(ctx, name, data); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}

func TestList(t *testing.T) {
	b, s := open(t)
	s.PageKeys = 7
	var want []string
	for i := range 30 {
		name := fmt.Sprintf("kv/%03d", i)
		want = append(want, name)
		if err := b.Put(t.Context(), name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(t.Context(), "other", []byte("x")); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := b.List(t.Context(), "kv/", func(n string) bool { got = append(got, n); return true }); err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %v, %v", got, err)
	}
	n := 0
	if err := b.List(t.Context(), "", func(string) bool { n++; return n < 10 }); err != nil || n != 10 {
		t.Errorf("listed %d, %v; want 10", n, err)
	}
}

// TestParts puts large objects: in parts, which leave nothing when one fails.
func TestParts(t *testing.T) {
	b, s := open(t)
	data := make([]byte, 33<<20)
	for i := range data {
		data[i] = byte(i>>12) ^ byte(i)
	}
	for _, c := range []struct {
		name  string
		fault func(r *http.Request, n int) s3server.Fault
		there bool // in the end
		fails bool
	}{
		{"well", nil, true, false},
		{"there", nil, true, false},
		{"late", func(r *http.Request, n int) s3server.Fault {
			if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && n < 6 {
				return s3server.Late
			}
			return ""
		}, true, false},
		{"lost", func(r *http.Request, n int) s3server.Fault {
			if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && n < 6 {
				return s3server.LostAnswer
			}
			return ""
		}, true, false},
		{"broken", func(r *http.Request, n int) s3server.Fault {
			if r.URL.Query().Get("partNumber") == "2" {
				return s3server.Broken
			}
			return ""
		}, false, true},
	} {
		var n atomic.Int64
		s.Inject(nil)
		if c.fault != nil {
			s.Inject(func(r *http.Request) s3server.Fault { return c.fault(r, int(n.Add(1))) })
		}
		if c.name == "there" {
			if err := b.Put(t.Context(), c.name, data[:5]); err != nil {
				t.Fatal(err)
			}
		}
		err := b.PutNew(t.Context(), c.name, data)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, err)
		}
		got := s.Object("team a/ü/" + c.name)
		if (got != nil) != c.there || c.name != "there" && got != nil && !bytes.Equal(got, data) || c.name == "there" && len(got) != 5 {
			t.Errorf("%s: the object has %d bytes", c.name, len(got))
		}
		if s.Uploads() != 0 {
			t.Errorf("%s: %d uploads are left", c.name, s.Uploads())
		}
	}
}

// TestFaults: what a store does wrong is tried again or told, and never believed.
func TestFaults(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	for _, c := range []struct {
		fault s3server.Fault
		times int // that it happens
		get   string
		put   string
	}{
		{s3server.SlowDown, 3, "", ""}, {s3server.SlowDown, 4, s3.CodeFailed, s3.CodeFailed},
		{s3server.Broken, 2, "", ""}, {s3server.Broken, 9, s3.CodeFailed, s3.CodeFailed},
		{s3server.Cut, 2, "", ""}, {s3server.LostAnswer, 1, "", ""},
		{s3server.Denied, 1, s3.CodeRefused, s3.CodeRefused},
		{s3server.Shorter, 1, "corrupt", ""}, {s3server.Stale, 1, "not_found", ""},
		{s3server.Hang, 3, "", ""}, {s3server.Hang, 4, s3.CodeFailed, s3.CodeFailed},
	} {
		t.Run(fmt.Sprintf("%s %d", c.fault, c.times), func(t *testing.T) {
			try := func(t *testing.T, b *s3.Bucket, s *s3server.Server) {
				if err := b.Put(t.Context(), "there", data); err != nil {
					t.Fatal(err)
				}
				for _, op := range []string{"get", "put"} {
					var n atomic.Int64
					s.Inject(func(*http.Request) s3server.Fault {
						if int(n.Add(1)) <= c.times {
							return c.fault
						}
						return ""
					})
					got := make([]byte, len(data))
					err, want := b.Get(t.Context(), "there", got, 0), c.get
					if op == "put" {
						n.Store(0)
						err, want = b.PutNew(t.Context(), "new", data), c.put
					}
					if said(err) != want {
						t.Errorf("%s: %v (%q), want %q", op, err, said(err), want)
					}
					if op == "get" && err == nil && !bytes.Equal(got, data) || op == "put" && err == nil && !bytes.Equal(s.Object("team a/ü/new"), data) {
						t.Errorf("%s: other bytes", op)
					}
				}
			}
			if c.fault == s3server.Cut || c.fault == s3server.LostAnswer {
				b, s := open(t)
				try(t, b, s)
				return
			}
			synctest.Test(t, func(t *testing.T) { // pauses take no time
				s := s3server.New("kv-cache", access)
				try(t, within(t, s, nil), s)
			})
		})
	}
}

// said is the code of an error, or its kind.
func said(err error) string {
	var e *dynamo.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e) && e.Code != "":
		return e.Code
	}
	return dynamo.KindOf(err).String()
}

// TestRests: a store that goes on failing is left alone and asked again after longer
// and longer times; both ends are logged once.
func TestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := s3server.New("kv-cache", access)
		logs := &lines{}
		b := within(t, s, slog.New(slog.NewTextHandler(logs, nil)))
		s.Inject(func(*http.Request) s3server.Fault { return s3server.Broken })
		var spared, asked int
		begun := time.Now()
		for time.Since(begun) < 10*time.Minute {
			before := s.Requests()
			_, err := b.Has(t.Context(), "x")
			if dynamo.KindOf(err) != dynamo.KindUnavailable {
				t.Fatal(err)
			}
			if s.Requests() == before {
				spared++
			} else {
				asked++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if asked < 10 || asked > 25 || spared < 1000 {
			t.Errorf("in ten minutes the store was asked %d times and spared %d", asked, spared)
		}
		s.Inject(nil)
		for range 700 {
			if _, err := b.Has(t.Context(), "x"); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if _, err := b.Has(t.Context(), "x"); err != nil {
			t.Errorf("the store is back, and it says %v", err)
		}
		if got := logs.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "goes on failing") || !strings.Contains(got, "is back") {
			t.Errorf("logged:\n%s", got)
		}
		// What the caller gave up is not the store's fault.
		s.Inject(func(*http.Request) s3server.Fault { return s3server.Hang })
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := b.Has(ctx, "x"); dynamo.KindOf(err) != dynamo.KindDeadline {
				t.Errorf("a question that took too long: %v", err)
			}
			cancel()
		}
	})
}

// lines is a log.
type lines struct {
	mu struct {
		sync.Mutex
		b bytes.Buffer
	}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.String()
}

// TestRefused: requests with other credentials, and what else a store refuses, say what to
// look at.
func TestRefused(t *testing.T) {
	s := s3server.New("kv-cache", access)
	for _, c := range []struct {
		name   string
		change func(*s3.Config)
		fault  s3server.Fault
		want   string
	}{
		{"another key", func(c *s3.Config) { c.KeyID = "other" }, "", "AWS_ACCESS_KEY_ID"},
		{"another secret", func(c *s3.Config) { c.Secret = "other" }, "", "AWS_SECRET_ACCESS_KEY"},
		{"another session", func(c *s3.Config) { c.Session = "" }, "", "AWS_SESSION_TOKEN"},
		{"another region", func(c *s3.Config) { c.Region = "eu-other-1" }, "", "is in region eu-test-1, not eu-other-1"},
		{"another bucket", func(c *s3.Config) { c.Bucket = "another" }, "", `no bucket "another"`},
		{"no rights", nil, s3server.Denied, "must be let list, get, put and delete"},
		{"another clock", nil, s3server.Skewed, "clock"},
		{"sent elsewhere", nil, s3server.Redirected, "is in region eu-other-1, not eu-test-1"},
	} {
		cfg := config("http://store.test")
		cfg.Transport = s.Transport()
		if c.change != nil {
			c.change(&cfg)
		}
		b, err := s3.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.Inject(func(*http.Request) s3server.Fault { return c.fault })
		before := s.Requests()
		if err := b.Put(t.Context(), "x", []byte("x")); said(err) != s3.CodeRefused || !strings.Contains(err.Error(), c.want) || s.Requests() != before+1 {
			t.Errorf("%s: %v after %d requests, want …%s…", c.name, err, s.Requests()-before, c.want)
		}
	}
	if len(s.Keys()) > 0 {
		t.Errorf("the store took %v", s.Keys())
	}
}

// TestClock: a client whose clock is wrong is told so.
func TestClock(t *testing.T) {
	s := s3server.New("kv-cache", access)
	c := config("http://store.test")
	c.Transport = behind{s.Transport()}
	b, err := s3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "x", []byte("x")); said(err) != s3.CodeRefused || !strings.Contains(err.Error(), "clock") {
		t.Errorf("got %v", err)
	}
}

// behind has requests come from an hour ago.
type behind struct{ http.RoundTripper }

func (l behind) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Amz-Date", time.Now().Add(-time.Hour).UTC().Format("20060102T150405Z"))
	return l.RoundTripper.RoundTrip(r)
}

// TestRetryAfter: a store that asks to be left alone is, for as long as it says, if that
// is not too long.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		after string
		rest  time.Duration // until it is asked again
		code  string        // of the first operation
	}{
		{"0", 0, ""}, {"2", 2 * time.Second, ""}, {"soon", 0, ""},
		{"20", 20 * time.Second, s3.CodeFailed}, {"99999999", time.Minute, s3.CodeFailed},
		{"Sat, 01 Jan 2000 00:00:30 GMT", 30 * time.Second, s3.CodeFailed}, {"Fri, 31 Dec 1999 00:00:00 GMT", 0, ""},
	} {
		t.Run(c.after, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := s3server.New("kv-cache", access)
				b := within(t, s, nil)
				if err := b.Put(t.Context(), "x", []byte("x")); err != nil {
					t.Fatal(err)
				}
				busy := &throttle{RoundTripper: s.Transport(), after: c.after, left: 1}
				cfg := config("http://store.test")
				cfg.Transport = busy
				b, err := s3.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, err = b.Has(t.Context(), "x")
				if said(err) != c.code {
					t.Errorf("got %v, want %q", err, c.code)
				}
				for err != nil {
					if n := busy.asked; n != 1 {
						t.Fatalf("asked %d times", n)
					}
					time.Sleep(100 * time.Millisecond)
					_, err = b.Has(t.Context(), "x")
				}
				if took := time.Since(began); took < c.rest || took > c.rest+time.Second/2 {
					t.Errorf("it is asked again after %v, want %v", took, c.rest)
				}
			})
		})
	}
}

// throttle has a store ask for fewer requests.
type throttle struct {
	http.RoundTripper
	after       string
	left, asked int
}

func (l *throttle) RoundTrip(r *http.Request) (*http.Response, error) {
	l.asked++
	if l.left--; l.left >= 0 {
		w := httptest.NewRecorder()
		w.Header().Set("Retry-After", l.after)
		w.WriteHeader(http.StatusServiceUnavailable)
		return w.Result(), nil
	}
	return l.RoundTripper.RoundTrip(r)
}

// TestLies: a store that says it has put what it has not, or something else, is found out
// at the latest by who reads; its tags are not believed.
func TestLies(t *testing.T) {
	large := make([]byte, 17<<20)
	for _, c := range []struct {
		fault s3server.Fault
		data  []byte
		put   string // how the put ends
		there bool
	}{
		{s3server.Unstored, []byte("small"), "", false}, {s3server.Unstored, large, "", false},
		{s3server.WrongETag, []byte("small"), "", true}, {s3server.WrongETag, large, s3.CodeRefused, false},
	} {
		s := s3server.New("kv-cache", access)
		b := within(t, s, nil)
		s.Inject(func(r *http.Request) s3server.Fault { return c.fault })
		if err := b.PutNew(t.Context(), "x", c.data); said(err) != c.put {
			t.Errorf("%s, %d bytes: put: %v, want %q", c.fault, len(c.data), err, c.put)
		}
		s.Inject(nil)
		got := make([]byte, len(c.data))
		err := b.Get(t.Context(), "x", got, 0)
		if (err == nil) != c.there || err == nil && !bytes.Equal(got, c.data) || err != nil && dynamo.KindOf(err) != dynamo.KindNotFound {
			t.Errorf("%s, %d bytes: get: %v", c.fault, len(c.data), err)
		}
		if there, err := b.Has(t.Context(), "x"); there != c.there || err != nil {
			t.Errorf("%s, %d bytes: has: %v, %v", c.fault, len(c.data), there, err)
		}
		if s.Uploads() != 0 {
			t.Errorf("%s: %d uploads are left", c.fault, s.Uploads())
		}
	}
}

func TestConfig(t *testing.T) {
	c := config("http://127.0.0.1:9000")
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	bad := s3.Config{Endpoint: "ftp://x", Bucket: "UPPER", Prefix: strings.Repeat("p", 2000)}
	err := bad.Validate()
	for _, want := range []string{"ftp://x", "UPPER", "prefix", "region", "AWS_ACCESS_KEY_ID", "attempts"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among the faults: %v", want, err)
		}
	}
}

// TestUnconditional: a store that knows no conditional puts is asked first.
func TestUnconditional(t *testing.T) {
	s := s3server.New("kv-cache", access)
	c := config("http://store.test")
	c.Transport = unconditional{s.Transport()}
	b, err := s3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := b.PutNew(t.Context(), "x", []byte(text)); err != nil {
			t.Error(err)
		}
	}
	if got := s.Object("team a/ü/x"); string(got) != "first" {
		t.Errorf("the store has %q", got)
	}
}

type unconditional struct{ http.RoundTripper }

func (u unconditional) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("If-None-Match") != "" {
		w := httptest.NewRecorder()
		w.WriteHeader(http.StatusNotImplemented)
		return w.Result(), nil
	}
	return u.RoundTripper.RoundTrip(r)
}

// TestHeld: when a put has returned its bytes are not read any more, although the
// connection still is at them.
func TestHeld(t *testing.T) {
	held := make(chan *http.Request, 1)
	c := config("http://store.test")
	c.Transport, c.Attempts = late{held}, 1
	b, err := s3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "x", []byte("secret")); said(err) != s3.CodeFailed {
		t.Error(err)
	}
	r := <-held
	if n, err := r.Body.Read(make([]byte, 10)); n > 0 || err == nil {
		t.Errorf("%d bytes were read after the put had ended, %v", n, err)
	}
}

// late is a transport that keeps requests it has answered.
type late struct{ held chan *http.Request }

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	l.held <- r
	return nil, errors.New("the connection is gone")
}

// BenchmarkBucket moves objects of 2 MiB, 8 at once, beside plain requests that read as
// many bytes from a server that does nothing else.
func BenchmarkBucket(b *testing.B) {
	const size = 2 << 20
	bucket, _ := open(b)
	data := make([]byte, size)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(data) }))
	defer plain.Close()
	if err := bucket.Put(b.Context(), "there", data); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		do   func(into []byte) error
	}{
		{"get", func(into []byte) error { return bucket.Get(b.Context(), "there", into, 0) }},
		{"put", func(into []byte) error { return bucket.Put(b.Context(), "new", into) }},
		{"plain get", func(into []byte) error {
			r, err := http.Get(plain.URL)
			if err != nil {
				return err
			}
			defer r.Body.Close()
			_, err = io.ReadFull(r.Body, into)
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(size)
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				into := make([]byte, size)
				for pb.Next() {
					if err := c.do(into); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
