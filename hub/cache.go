package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
)

// markerName is the file that makes a folder a model.
const markerName = "model.json"

// errTouched says that a cached file is not as its marker describes it.
var errTouched = errors.New("a file changed since it was fetched")

func (h *Hub) modelDir(key string) string { return filepath.Join(h.cfg.CacheDir, "models", key) }

// List returns the models of the cache, ordered by reference. A folder whose
// marker cannot be read is left out: Resolve fetches it again.
func (h *Hub) List() ([]Model, error) {
	entries, err := os.ReadDir(filepath.Join(h.cfg.CacheDir, "models"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the model cache: %w", err)
	}
	var all []Model
	for _, e := range entries {
		if m, err := h.readMarker(e.Name()); err == nil {
			all = append(all, *m)
		}
	}
	slices.SortFunc(all, func(a, b Model) int { return strings.Compare(a.Ref, b.Ref) })
	return all, nil
}

// Remove deletes a model and any half-finished download of it from the cache.
// KindNotFound if neither is there; local paths are never deleted.
func (h *Hub) Remove(ctx context.Context, ref string) error {
	r, err := h.parse(ref)
	if err != nil {
		return err
	}
	if r.kind == refLocal {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s is a path of your own; only models of the cache are removed", ref)}
	}
	release, err := h.lock(ctx, r.key(), ref)
	if err != nil {
		return err
	}
	defer release()
	found := false
	for _, dir := range []string{h.modelDir(r.key()), filepath.Join(h.cfg.CacheDir, "partial", r.key())} {
		if _, err := os.Stat(dir); err == nil {
			found = true
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove %s: %w", ref, err)
		}
	}
	if !found {
		return &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("model %s is not in the cache %s", ref, h.cfg.CacheDir)}
	}
	return nil
}

// Verify hashes every file of a cached model again. KindCorrupt names the first
// file that is not what it was; the model is then removed from the cache.
func (h *Hub) Verify(ctx context.Context, ref string) (*Model, error) {
	r, err := h.parse(ref)
	if err != nil {
		return nil, err
	}
	if r.kind == refLocal {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s is a path of your own; nothing is known to verify it against", ref)}
	}
	key := r.key()
	if found, err := h.Lookup(ref); err == nil {
		key = h.keyOf(found.Path)
	}
	release, err := h.lock(ctx, key, ref)
	if err != nil {
		return nil, err
	}
	defer release()
	m, err := h.readMarker(key)
	if err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("model %s is not in the cache %s", ref, h.cfg.CacheDir)}
	}
	if err := h.rehash(ctx, key, m); err != nil {
		if dynamo.KindOf(err) == dynamo.KindCorrupt {
			err = errors.Join(err, os.RemoveAll(h.modelDir(key)))
		}
		return nil, err
	}
	m.Ref, m.Name = ref, r.servedName()
	return m, nil
}

// keyOf returns the folder name under models/ that path lies in.
func (h *Hub) keyOf(path string) string {
	rel, err := filepath.Rel(filepath.Join(h.cfg.CacheDir, "models"), path)
	if err != nil {
		return ""
	}
	key, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
	return key
}

// open returns a cached model whose files have the sizes and times they had
// when they were verified.
func (h *Hub) open(key string) (*Model, error) {
	m, err := h.readMarker(key)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		info, err := os.Stat(filepath.Join(h.modelDir(key), filepath.FromSlash(f.Name)))
		if err != nil {
			return nil, err
		}
		if info.Size() != f.SizeBytes || !info.ModTime().Equal(f.ModTime) {
			return nil, errTouched
		}
	}
	return m, nil
}

// openOrRepair is open under the lock: a model with touched files is hashed
// again, and kept with a fresh marker or deleted.
func (h *Hub) openOrRepair(ctx context.Context, key string) (*Model, error) {
	m, err := h.open(key)
	if err == nil {
		return m, nil
	}
	if m, err := h.readMarker(key); err == nil && h.rehash(ctx, key, m) == nil {
		if err := stamp(h.modelDir(key), m); err == nil && writeMarker(h.modelDir(key), m) == nil {
			return m, nil
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := os.RemoveAll(h.modelDir(key)); err != nil {
		return nil, fmt.Errorf("remove the broken model %s: %w", key, err)
	}
	return nil, err
}

// readMarker reads and checks a marker; names in it stay inside the folder.
func (h *Hub) readMarker(key string) (*Model, error) {
	f, err := os.Open(filepath.Join(h.modelDir(key), markerName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m Model
	if err := json.UnmarshalRead(io.LimitReader(f, maxMarkerBytes), &m); err != nil {
		return nil, fmt.Errorf("read the marker of %s: %w", key, err)
	}
	if len(m.Files) == 0 {
		return nil, fmt.Errorf("the marker of %s lists no files", key)
	}
	for _, file := range m.Files {
		if !safeName(file.Name) {
			return nil, hostile("the marker of "+key, file.Name)
		}
	}
	m.place(h.modelDir(key))
	return &m, nil
}

// place sets the fields that follow from where the model lies.
func (m *Model) place(dir string) {
	m.Path, m.Cached = dir, true
	if len(m.Files) == 1 && strings.HasSuffix(strings.ToLower(m.Files[0].Name), ".gguf") {
		m.Path = filepath.Join(dir, filepath.FromSlash(m.Files[0].Name))
	}
}

// publish makes a verified stage folder the model of key.
func (h *Hub) publish(key, stage string, m *Model) error {
	m.Fetched = time.Now().UTC().Truncate(time.Second)
	m.SizeBytes = 0
	for _, f := range m.Files {
		m.SizeBytes += f.SizeBytes
	}
	m.Digest = digestOf(m.Files)
	if err := prune(stage, m); err != nil {
		return err
	}
	if err := stamp(stage, m); err != nil {
		return err
	}
	if err := writeMarker(stage, m); err != nil {
		return err
	}
	dir := h.modelDir(key)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return diskError("make the model folder", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the old model %s: %w", key, err)
	}
	if err := os.Rename(stage, dir); err != nil {
		return diskError("move the model into the cache", err)
	}
	m.place(dir)
	return nil
}

// prune deletes what earlier attempts left beside the model's files.
func prune(dir string, m *Model) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("tidy the download folder: %w", err)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || d.IsDir() || slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == filepath.ToSlash(name) }) {
			return err
		}
		return os.Remove(path)
	})
}

// digestOf names a model by its bytes: the digest of a single file, else that
// of the sorted list of names and digests.
func digestOf(files []File) string {
	if len(files) == 1 {
		return "sha256:" + files[0].SHA256
	}
	lines := make([]string, len(files))
	for i, f := range files {
		lines[i] = f.SHA256 + "  " + f.Name + "\n"
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// stamp records the files' times as they are on disk.
func stamp(dir string, m *Model) error {
	for i, f := range m.Files {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(f.Name)))
		if err != nil {
			return fmt.Errorf("look at the fetched file: %w", err)
		}
		m.Files[i].ModTime = info.ModTime()
	}
	return nil
}

func writeMarker(dir string, m *Model) error {
	b, err := json.Marshal(m, jsontext.Multiline(true))
	if err != nil {
		return fmt.Errorf("write the marker: %w", err)
	}
	return writeFile(filepath.Join(dir, markerName), append(b, '\n'))
}

// writeFile replaces a small file atomically.
func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return diskError("write "+filepath.Base(path), err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return diskError("write "+filepath.Base(path), err)
	}
	return nil
}

// rehash compares every file with its digest.
func (h *Hub) rehash(ctx context.Context, key string, m *Model) error {
	p := &progress{hub: h, kind: EventVerify, ref: m.Ref, source: m.Source, total: m.SizeBytes}
	defer p.flush()
	for _, f := range m.Files {
		got, err := hashFile(ctx, filepath.Join(h.modelDir(key), filepath.FromSlash(f.Name)), sha256.New(), p)
		if errors.Is(err, fs.ErrNotExist) {
			got, err = "no file", nil
		}
		if err != nil {
			return err
		}
		if got != f.SHA256 {
			return mismatch(f.Name, "the cache", "SHA-256 "+got, f.SHA256)
		}
	}
	return nil
}

// safeName says whether a name from outside may become a file of the model's
// folder.
func safeName(name string) bool {
	return name != "" && len(name) < 512 && !strings.ContainsAny(name, "\\\x00:") && filepath.IsLocal(filepath.FromSlash(name)) &&
		filepath.ToSlash(filepath.Clean(filepath.FromSlash(name))) == name && name != markerName && !strings.HasSuffix(name, partSuffix) && !strings.HasSuffix(name, stateSuffix)
}
