package hub

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
)

var needs = []string{"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}

func TestFetchRepo(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*fakeHub)
	}{
		{"listing with digests", func(*fakeHub) {}},
		{"digests from headers", func(f *fakeHub) { f.noBlobs = true }},
		{"server without ranges", func(f *fakeHub) { f.noRange = true }},
		{"answers cut in the middle", func(f *fakeHub) { f.mu.cut = 4 }},
		{"cut and without ranges", func(f *fakeHub) { f.mu.cut = 2; f.noRange = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeHub(t, tinyRepo(2*pieceBytes+12345))
			tc.edit(f)
			h := newTestHub(t, f.URL, nil)
			m, err := h.Resolve(t.Context(), testRepo)
			if err != nil {
				t.Fatal(err)
			}
			same(t, m.Path, f.files, needs...)
			if m.Name != testRepo || m.Revision != testCommit || !m.Cached || len(m.Files) != 4 {
				t.Errorf("got %+v", m)
			}
			f.Close() // from here on everything comes from the cache
			again, err := h.Resolve(t.Context(), testRepo)
			if err != nil {
				t.Fatal(err)
			}
			if again.Path != m.Path || again.Digest != m.Digest {
				t.Errorf("from the cache got %+v, fetched %+v", again, m)
			}
			all, err := h.List()
			if err != nil || len(all) != 1 || all[0].Ref != testRepo || all[0].Path != m.Path {
				t.Errorf("List: %+v, %v", all, err)
			}
		})
	}
}

// A download that is cut for good keeps what came, and the next one fetches the
// rest alone.
func TestResume(t *testing.T) {
	f := newFakeHub(t, tinyRepo(3*pieceBytes))
	h := newTestHub(t, f.URL, func(c *Config) { c.Connections = 1 })
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the user gave up")
	h.cfg.Progress = func(e Event) {
		if e.Kind == EventProgress && e.Done > 2*pieceBytes {
			cancel(gone)
		}
	}
	if _, err := h.Resolve(ctx, testRepo); !errors.Is(err, gone) {
		t.Fatalf("got %v, want the cause of the cancellation", err)
	}
	if _, err := h.Lookup(testRepo); err == nil {
		t.Fatal("a cut download shows as a model")
	}
	f.mu.Lock()
	f.mu.bytes = 0
	f.mu.Unlock()
	h.cfg.Progress = nil
	m, err := h.Resolve(t.Context(), testRepo)
	if err != nil {
		t.Fatal(err)
	}
	same(t, m.Path, f.files, needs...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if sent := f.mu.bytes; sent > pieceBytes+1<<20 {
		t.Errorf("the second attempt fetched %d bytes; one piece was missing", sent)
	}
}

func TestCorrupted(t *testing.T) {
	f := newFakeHub(t, tinyRepo(5000))
	for _, name := range []string{"model.safetensors", "config.json"} {
		bad := append([]byte(nil), f.files[name]...)
		bad[len(bad)/2] ^= 1
		f.lie = map[string][]byte{name: bad}
		h := newTestHub(t, f.URL, nil)
		_, err := h.Resolve(t.Context(), testRepo)
		if err == nil || dynamo.KindOf(err) != dynamo.KindCorrupt || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "deleted") {
			t.Fatalf("got %v, want KindCorrupt naming %s", err, name)
		}
		f.lie = nil
		m, err := h.Resolve(t.Context(), testRepo)
		if err != nil {
			t.Fatal(err)
		}
		same(t, m.Path, f.files, needs...)
	}
}

// The token goes to the hub and not to the store it redirects to, even if that
// is a subdomain or the same host on another port.
func TestTokenStaysHome(t *testing.T) {
	store := newFakeHub(t, nil)
	f := newFakeHub(t, tinyRepo(5000))
	var leaked atomic.Int32
	store.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		f.serve(w, r, "x", f.files[r.URL.Path[1:]])
	})
	f.cdn = store.URL
	h := newTestHub(t, f.URL, func(c *Config) { c.Token = "hf_secret" })
	if _, err := h.Resolve(t.Context(), testRepo); err != nil {
		t.Fatal(err)
	}
	if n := leaked.Load(); n > 0 {
		t.Errorf("%d requests carried the token to another host", n)
	}
	for _, a := range f.mu.auth {
		if a != "Bearer hf_secret" {
			t.Errorf("a request to the hub carried %q", a)
		}
	}
}

func TestTwoAtOnce(t *testing.T) {
	f := newFakeHub(t, tinyRepo(pieceBytes+5))
	first := newTestHub(t, f.URL, nil)
	var waited atomic.Bool
	release := make(chan struct{})
	first.cfg.Progress = func(e Event) {
		if e.Kind == EventProgress {
			select {
			case <-release:
			case <-time.After(5 * time.Second): // the second did not wait; told below
			}
		}
	}
	second := newTestHub(t, f.URL, func(c *Config) { c.CacheDir = first.cfg.CacheDir })
	second.cfg.Progress = func(e Event) {
		if e.Kind == EventWaiting && waited.CompareAndSwap(false, true) {
			close(release)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := first.Resolve(t.Context(), testRepo); err != nil {
			t.Error(err)
		}
	})
	for { // until the first holds the lock
		f.mu.Lock()
		n := f.mu.requests["/api/models/"+testRepo+"/revision/main"]
		f.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := second.Resolve(t.Context(), testRepo); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if !waited.Load() {
		t.Error("the second did not say that it waits")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.mu.requests["/api/models/"+testRepo+"/revision/main"]; n != 1 {
		t.Errorf("the model was fetched %d times", n)
	}
}

// fullFile fails as a full disk does, after so many bytes.
type fullFile struct {
	partFile
	left *atomic.Int64
}

func (f fullFile) WriteAt(b []byte, at int64) (int, error) {
	if f.left.Add(-int64(len(b))) < 0 {
		return 0, &os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}
	}
	return f.partFile.WriteAt(b, at)
}

func TestDiskFull(t *testing.T) {
	f := newFakeHub(t, tinyRepo(2*pieceBytes))
	h := newTestHub(t, f.URL, nil)
	var left atomic.Int64
	left.Store(pieceBytes)
	open := h.openPart
	h.openPart = func(path string) (partFile, error) {
		p, err := open(path)
		return fullFile{p, &left}, err
	}
	_, err := h.Resolve(t.Context(), testRepo)
	if err == nil || dynamo.KindOf(err) != dynamo.KindExhausted || !strings.Contains(err.Error(), "DYN_CACHE_DIR") {
		t.Fatalf("got %v, want KindExhausted that says what to do", err)
	}
	h.openPart = open
	h.freeBytes = func(string) (int64, error) { return 100 << 20, nil }
	if _, err := h.Resolve(t.Context(), testRepo); err != nil {
		t.Fatalf("after the disk was cleared: %v", err)
	}

	h = newTestHub(t, f.URL, nil)
	h.freeBytes = func(string) (int64, error) { return 80 << 20, nil }
	_, err = h.Resolve(t.Context(), testRepo)
	if err == nil || dynamo.KindOf(err) != dynamo.KindExhausted || !strings.Contains(err.Error(), "80 MB free") {
		t.Fatalf("got %v, want a refusal before the download, with both numbers", err)
	}
	if f.mu.requests["/"+testRepo+"/resolve/"+testCommit+"/model.safetensors"] > 8 {
		t.Error("a file was asked for although there is no room")
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name  string
		deny  int
		token string
		kind  dynamo.Kind
		say   string
	}{
		{"gated", 403, "", dynamo.KindInvalid, "set HF_TOKEN"},
		{"gated for this token", 403, "hf_x", dynamo.KindInvalid, "gives no access"},
		{"unknown or private", 401, "", dynamo.KindNotFound, "set HF_TOKEN"},
		{"unknown", 404, "", dynamo.KindNotFound, "check the name"},
	} {
		f := newFakeHub(t, nil)
		f.deny = tc.deny
		h := newTestHub(t, f.URL, func(c *Config) { c.Token = tc.token })
		_, err := h.Resolve(t.Context(), testRepo)
		if err == nil || dynamo.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

func TestNoNetwork(t *testing.T) {
	f := newFakeHub(t, nil)
	url := f.URL
	f.Close()
	h := newTestHub(t, url, nil)
	_, err := h.Resolve(t.Context(), testRepo)
	if err == nil || dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), strings.TrimPrefix(url, "http://")) || !strings.Contains(err.Error(), "HF_ENDPOINT") {
		t.Errorf("got %v, want the host that was tried", err)
	}
}

func TestHostileNames(t *testing.T) {
	for _, name := range []string{"../config.json", "/etc/config.json", "a/../../model.safetensors", `..\model.safetensors`, "x/../tokenizer.json"} {
		f := newFakeHub(t, map[string][]byte{name: []byte("x"), "model.safetensors": randomBytes(2000), "config.json": []byte("{}")})
		h := newTestHub(t, f.URL, nil)
		_, err := h.Resolve(t.Context(), testRepo)
		if err == nil || dynamo.KindOf(err) != dynamo.KindCorrupt || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestChoose(t *testing.T) {
	files := func(names ...string) (all []remoteFile) {
		for _, n := range names {
			all = append(all, remoteFile{name: n})
		}
		return all
	}
	for _, tc := range []struct {
		ref  string
		have []remoteFile
		want string // names, or a piece of the error after !
	}{
		{"o/n", files("a.gguf"), "a.gguf"},
		{"o/n", files("a.gguf", "b.gguf"), "!a.gguf"},
		{"o/n:b.gguf", files("a.gguf", "b.gguf"), "b.gguf"},
		{"o/n:q4_k_m", files("M-Q8_0.gguf", "M-Q4_K_M.gguf"), "M-Q4_K_M.gguf"},
		{"o/n:Q4", files("M-Q4_0.gguf", "M-Q4_K_M.gguf"), "!M-Q4_0.gguf"},
		{"o/n:sub/b.gguf", files("sub/b.gguf"), "sub/b.gguf"},
		{"o/n:m-00001-of-00002.gguf", files("m-00001-of-00002.gguf"), "!split"},
		{"o/n", files("pytorch_model.bin", "config.json"), "!neither safetensors"},
		{"o/n", files("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "consolidated.safetensors", "x.gguf"),
			"config.json model.safetensors.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors"},
		{"o/n", files("adapter.safetensors"), "adapter.safetensors"},
	} {
		h := newTestHub(t, "http://h", nil)
		r, err := h.parse(tc.ref)
		if err != nil {
			t.Fatal(err)
		}
		got, err := choose(r, tc.have)
		if say, bad := strings.CutPrefix(tc.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), say) {
				t.Errorf("%s of %v: got %v, %v; want %s", tc.ref, tc.have, got, err, tc.want)
			}
			continue
		}
		var list []string
		for _, f := range got {
			list = append(list, f.name)
		}
		if err != nil || strings.Join(list, " ") != tc.want {
			t.Errorf("%s: got %v, %v; want %s", tc.ref, list, err, tc.want)
		}
	}
}

func TestParse(t *testing.T) {
	h := newTestHub(t, "http://h", nil)
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.MkdirAll(filepath.Join(dir, "own", "model"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		ref  string
		kind refKind
		bad  bool
	}{
		{ref: "smollm2", kind: refAlias},
		{ref: "org/name", kind: refRepo},
		{ref: "org/name@v1:f.gguf", kind: refRepo},
		{ref: "org/name:sub/f.gguf", kind: refRepo},
		{ref: "own/model", kind: refLocal},
		{ref: "./smollm2", kind: refLocal},
		{ref: "x.gguf", kind: refLocal},
		{ref: "dir/x.GGUF", kind: refLocal},
		{ref: "/abs", kind: refLocal},
		{ref: "nobody", bad: true},
		{ref: "", bad: true},
		{ref: "a/b/c", bad: true},
		{ref: "org/name:../../x.gguf", bad: true},
		{ref: "org/name:", bad: true},
		{ref: "org/..", bad: true},
		{ref: "org/na me", bad: true},
	} {
		r, err := h.parse(tc.ref)
		if tc.bad != (err != nil) || err == nil && r.kind != tc.kind {
			t.Errorf("%q: got %+v, %v", tc.ref, r, err)
		}
		if tc.bad && dynamo.KindOf(err) != dynamo.KindNotFound {
			t.Errorf("%q: got kind %v", tc.ref, dynamo.KindOf(err))
		}
	}
}

func TestTouchedVerifyRemove(t *testing.T) {
	f := newFakeHub(t, tinyRepo(5000))
	h := newTestHub(t, f.URL, nil)
	m, err := h.Resolve(t.Context(), testRepo)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.Path, "model.safetensors")
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	f.deny = 500 // a touched file whose bytes are right is not fetched again
	if _, err := h.Resolve(t.Context(), testRepo); err != nil {
		t.Errorf("after touch: %v", err)
	}
	if _, err := h.Verify(t.Context(), testRepo); err != nil {
		t.Errorf("verify: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), f.files["model.safetensors"]...)
	bad[0] ^= 1
	if err := os.WriteFile(path, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Resolve(t.Context(), testRepo); err != nil {
		t.Errorf("a start does not hash: %v", err)
	}
	if _, err := h.Verify(t.Context(), testRepo); err == nil || dynamo.KindOf(err) != dynamo.KindCorrupt {
		t.Errorf("verify of damaged bytes: %v", err)
	}
	f.deny = 0
	if _, err := h.Resolve(t.Context(), testRepo); err != nil {
		t.Errorf("fetch again: %v", err)
	}
	if err := h.Remove(t.Context(), testRepo); err != nil {
		t.Error(err)
	}
	if err := h.Remove(t.Context(), testRepo); err == nil || dynamo.KindOf(err) != dynamo.KindNotFound {
		t.Errorf("second removal: %v", err)
	}
}

func TestLocal(t *testing.T) {
	h := newTestHub(t, "http://h", nil)
	dir := t.TempDir()
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("xyz"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	gguf, text := write("one/m.gguf"), write("text.bin")
	write("hf/config.json")
	write("hf/model.safetensors")
	write("empty/readme")
	for _, tc := range []struct{ ref, name, say string }{
		{gguf, "m", ""},
		{filepath.Dir(gguf), "m", ""},
		{filepath.Join(dir, "hf"), "hf", ""},
		{text, "", "not a .gguf"},
		{filepath.Join(dir, "empty"), "", "holds no model"},
		{filepath.Join(dir, "nowhere"), "", "no such file or folder"},
	} {
		m, err := h.Resolve(t.Context(), tc.ref)
		if tc.say != "" {
			if err == nil || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%s: got %v", tc.ref, err)
			}
		} else if err != nil || m.Name != tc.name || m.Cached {
			t.Errorf("%s: got %+v, %v", tc.ref, m, err)
		}
	}
}

func TestConfigFaults(t *testing.T) {
	c := Config{Endpoint: "ftp://x", Connections: 1000}
	err := c.Validate()
	for _, flag := range []string{"--cache-dir", "--hf-endpoint", "--python", "--download-connections"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("the error does not name %s: %v", flag, err)
		}
	}
}
