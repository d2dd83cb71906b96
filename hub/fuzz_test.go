package hub

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// Whatever a hub lists, the files that come out lie inside the model's folder
// and carry digests of the right form.
func FuzzListing(f *testing.F) {
	f.Add([]byte(`{"sha":"0123456789abcdef0123456789abcdef01234567","siblings":[{"rfilename":"model.safetensors","size":5,"blobId":"0123456789abcdef0123456789abcdef01234567"}]}`))
	f.Add([]byte(`{"sha":"../../x","siblings":[{"rfilename":"../model.gguf"},{"rfilename":"a\\b.gguf","size":-1,"lfs":{"sha256":"zz","size":9e18}}]}`))
	f.Add([]byte(`{"siblings":[{"rfilename":""},{"rfilename":"model.json"},{"rfilename":"x.part.json"},{}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var l listing
		if json.Unmarshal(body, &l) != nil {
			return
		}
		all, commit, err := l.files(reference{kind: refRepo, name: "o/n"}, "hub")
		if err != nil {
			return
		}
		if strings.ContainsAny(commit, "/?#.") {
			t.Errorf("commit %q", commit)
		}
		for _, file := range all {
			if !filepath.IsLocal(filepath.FromSlash(file.name)) || file.name == markerName {
				t.Errorf("name %q", file.name)
			}
			if file.sha256 != "" && len(file.sha256) != 64 || file.gitSHA1 != "" && len(file.gitSHA1) != 40 {
				t.Errorf("digests %q %q", file.sha256, file.gitSHA1)
			}
		}
		_, _ = choose(reference{kind: refRepo, name: "o/n"}, all) // must return
	})
}

// A marker or resume record of any content is read or refused.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"ref":"a","files":[{"name":"m.gguf","sizeBytes":3}]}`))
	f.Add([]byte(`{"files":[{"name":"../x"}]}`))
	f.Add([]byte(`{"digest":"d","size":40000000,"piece":16777216,"done":[1,16777216,99]}`))
	f.Add([]byte(`{"digest":"d","size":40000000,"piece":16777216,"done":[1,2,3]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		dir := t.TempDir()
		h := newTestHub(t, "http://h", func(c *Config) { c.CacheDir = dir })
		if err := os.MkdirAll(h.modelDir("k"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(h.modelDir("k"), markerName), filepath.Join(dir, "m"+stateSuffix)} {
			if err := os.WriteFile(path, body, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := h.readMarker("k"); err == nil && !strings.HasPrefix(m.Path, h.modelDir("k")) {
			t.Errorf("path %q", m.Path)
		}
		tr := &transfer{remoteFile: remoteFile{size: 40_000_000}, path: filepath.Join(dir, "m")}
		if tr.load(state{Digest: "d", Size: 40_000_000, Piece: pieceBytes}) {
			for i, n := range tr.mu.state.Done {
				if n < 0 || n > tr.pieceLen(i) {
					t.Errorf("piece %d has %d bytes", i, n)
				}
			}
		}
	})
}
