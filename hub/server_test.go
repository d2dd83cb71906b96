package hub

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// fakeHub is a Hugging Face hub with one repository, and the faults a test asks
// for.
type fakeHub struct {
	*httptest.Server
	t       *testing.T
	files   map[string][]byte // small ones get a git blob id, those over 1 KiB a SHA-256
	noBlobs bool              // the listing leaves sizes and digests out
	noRange bool              // ranges are ignored
	cdn     string            // redirect target for large files
	deny    int               // status of every answer
	lie     map[string][]byte // served instead of what was published
	mu      struct {
		sync.Mutex
		requests map[string]int // by path
		bytes    int64          // sent of file contents
		cut      int            // so many answers end in the middle
		auth     []string       // Authorization headers
	}
}

const testRepo = "org/tiny"

func newFakeHub(t *testing.T, files map[string][]byte) *fakeHub {
	f := &fakeHub{t: t, files: files}
	f.mu.requests = map[string]int{}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.mu.requests[r.URL.Path]++
	f.mu.auth = append(f.mu.auth, r.Header.Get("Authorization"))
	f.mu.Unlock()
	if f.deny != 0 {
		http.Error(w, "no", f.deny)
		return
	}
	if r.URL.Path == "/api/models/"+testRepo+"/revision/main" {
		f.list(w)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/"+testRepo+"/resolve/"+testCommit+"/")
	body, have := f.files[name]
	if !ok || !have {
		http.NotFound(w, r)
		return
	}
	if len(body) > 1024 {
		w.Header().Set("X-Linked-Etag", `"`+sha256Hex(body)+`"`)
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(body)))
	} else {
		w.Header().Set("ETag", `"`+blobID(body)+`"`)
	}
	if f.cdn != "" && len(body) > 1024 {
		http.Redirect(w, r, f.cdn+"/"+name, http.StatusFound)
		return
	}
	if lie, ok := f.lie[name]; ok {
		body = lie
	}
	f.serve(w, r, name, body)
}

const testCommit = "0123456789abcdef0123456789abcdef01234567"

func (f *fakeHub) list(w http.ResponseWriter) {
	type lfs struct {
		SHA256 string `json:"sha256"`
		Size   int    `json:"size"`
	}
	var siblings []map[string]any
	for name, body := range f.files {
		s := map[string]any{"rfilename": name}
		if !f.noBlobs {
			s["size"], s["blobId"] = len(body), blobID(body)
			if len(body) > 1024 {
				s["lfs"] = lfs{sha256Hex(body), len(body)}
			}
		}
		siblings = append(siblings, s)
	}
	b, err := json.Marshal(map[string]any{"sha": testCommit, "siblings": siblings})
	if err != nil {
		f.t.Error(err)
	}
	w.Write(b)
}

// serve sends a file, cutting it in the middle while cuts are left.
func (f *fakeHub) serve(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	f.mu.Lock()
	cut := f.mu.cut > 0 && r.Method == http.MethodGet
	if cut {
		f.mu.cut--
	}
	f.mu.Unlock()
	if f.noRange {
		r.Header.Del("Range")
	}
	out := &countingWriter{ResponseWriter: w, hub: f, cutAt: -1}
	if cut {
		out.cutAt = 1000
	}
	http.ServeContent(out, r, name, time.Time{}, bytes.NewReader(body))
}

// countingWriter counts what is sent and hangs up after cutAt bytes.
type countingWriter struct {
	http.ResponseWriter
	hub   *fakeHub
	cutAt int
}

func (w *countingWriter) Write(b []byte) (int, error) {
	if w.cutAt >= 0 {
		n, _ := w.ResponseWriter.Write(b[:min(len(b), w.cutAt)])
		w.ResponseWriter.(http.Flusher).Flush()
		w.hub.mu.Lock()
		w.hub.mu.bytes += int64(n)
		w.hub.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	n, err := w.ResponseWriter.Write(b)
	w.hub.mu.Lock()
	w.hub.mu.bytes += int64(n)
	w.hub.mu.Unlock()
	return n, err
}

// ReadFrom hides the connection's own, so that every byte passes Write.
func (w *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

func sha256Hex(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

func blobID(b []byte) string {
	s := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
	return hex.EncodeToString(s[:])
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(b)
	return b
}

// tinyRepo is a repository with everything a model needs and some things it
// does not.
func tinyRepo(weights int) map[string][]byte {
	return map[string][]byte{
		"config.json":               []byte(`{"model_type":"llama"}`),
		"tokenizer.json":            randomBytes(5000),
		"model.safetensors":         randomBytes(weights),
		"consolidated.safetensors":  randomBytes(2000),
		"README.md":                 []byte("hello"),
		"onnx/model.safetensors":    randomBytes(3000),
		"tokenizer_config.json":     []byte(`{}`),
		"original/consolidated.pth": randomBytes(3000),
	}
}

func newTestHub(t *testing.T, endpoint string, edit func(*Config)) *Hub {
	t.Helper()
	c := DefaultConfig()
	c.CacheDir, c.Endpoint, c.Logger = t.TempDir(), endpoint, slog.New(slog.DiscardHandler)
	if edit != nil {
		edit(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// same fails unless dir holds exactly the named files of want and the marker.
func same(t *testing.T, dir string, want map[string][]byte, names ...string) {
	t.Helper()
	for _, name := range names {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("read the fetched file: %v", err)
		} else if !bytes.Equal(got, want[name]) {
			t.Errorf("%s differs from what was published", name)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(names)+1 {
		t.Errorf("the model's folder holds %v, want %v and the marker", entries, names)
	}
}
