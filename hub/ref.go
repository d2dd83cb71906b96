package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// refKind is what a reference turned out to be.
type refKind uint8

const (
	refAlias refKind = iota
	refRepo
	refLocal
)

// reference is a parsed model reference.
type reference struct {
	kind     refKind
	name     string // alias, or org/name
	revision string // of a repo, empty for main
	file     string // of a repo, empty for the whole model
	path     string // of a local model
}

var repoRef = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{0,127}))?(?::([^:\\\x00-\x1f]{1,255}))?$`)

// parse decides what ref is: an alias, a path (absolute, beginning with . or ~/,
// existing, or a .gguf file), or org/name[@revision][:file]. An alias goes
// before a folder of that name; ./name is the folder.
func (h *Hub) parse(ref string) (reference, error) {
	if _, ok := h.aliases[ref]; ok {
		return reference{kind: refAlias, name: ref}, nil
	}
	if ref == "" {
		return reference{}, badRef(ref, h.known())
	}
	if path, ok := asPath(ref); ok {
		return reference{kind: refLocal, path: path}, nil
	}
	m := repoRef.FindStringSubmatch(ref)
	if m == nil || strings.Contains(ref, "..") {
		return reference{}, badRef(ref, h.known())
	}
	r := reference{kind: refRepo, name: m[1], revision: m[2], file: m[3]}
	if r.file != "" && !filepath.IsLocal(filepath.FromSlash(r.file)) {
		return reference{}, badRef(ref, h.known())
	}
	return r, nil
}

// asPath says whether ref is meant as a path of this machine, and which.
func asPath(ref string) (string, bool) {
	if rest, ok := strings.CutPrefix(ref, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest), true
		}
	}
	if filepath.IsAbs(ref) || ref == "." || ref == ".." || strings.HasPrefix(ref, "./") || strings.HasPrefix(ref, "../") {
		return ref, true
	}
	if _, err := os.Stat(ref); err == nil {
		return ref, true
	}
	return ref, strings.HasSuffix(strings.ToLower(ref), ".gguf") && !strings.Contains(ref, ":")
}

func (h *Hub) known() string {
	names := make([]string, 0, len(h.aliases))
	for name := range h.aliases {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func badRef(ref, known string) error {
	return &dynamo.Error{Kind: dynamo.KindNotFound, Code: "model_not_found", Message: fmt.Sprintf(
		"there is no model %q: give an alias (%s), a Hugging Face id (org/name or org/name:file.gguf), a folder in Hugging Face layout, or a .gguf file", ref, known)}
}

// String is the reference as a user writes it.
func (r reference) String() string {
	switch {
	case r.kind == refLocal:
		return r.path
	case r.kind == refAlias:
		return r.name
	}
	s := r.name
	if r.revision != "" {
		s += "@" + r.revision
	}
	if r.file != "" {
		s += ":" + r.file
	}
	return s
}

func (r reference) servedName() string { return r.name }

// key is the name of the reference's folder in the cache: readable, and unique
// by a piece of the reference's hash, because two ids may read alike once their
// slashes are gone.
func (r reference) key() string {
	if r.kind == refAlias {
		return r.name
	}
	sum := sha256.Sum256([]byte(r.String()))
	tail := "--" + hex.EncodeToString(sum[:4])
	name := strings.NewReplacer("/", "--", ":", "--", "@", "--", " ", "_").Replace(r.String())
	if len(name) > maxKeyLength-len(tail) {
		name = name[:maxKeyLength-len(tail)]
	}
	return name + tail
}

// local describes a model at a path of the user's own.
func local(ref, path string) (*Model, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Code: "model_not_found", Message: fmt.Sprintf("model %s: there is no such file or folder", ref)}
	}
	if err != nil {
		return nil, fmt.Errorf("look at model %s: %w", ref, err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the path of %s: %w", ref, err)
	}
	m := &Model{Ref: ref, Name: filepath.Base(abs), Path: abs, Source: "local path", SizeBytes: info.Size()}
	if !info.IsDir() {
		if !strings.HasSuffix(strings.ToLower(abs), ".gguf") {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("model %s is a file but not a .gguf file; give a .gguf file or a folder in Hugging Face layout", ref)}
		}
		m.Name = m.Name[:len(m.Name)-len(".gguf")]
		return m, nil
	}
	return localDir(m)
}

// localDir looks into a folder: Hugging Face layout, or a single .gguf file.
func localDir(m *Model) (*Model, error) {
	entries, err := os.ReadDir(m.Path)
	if err != nil {
		return nil, fmt.Errorf("read the model folder: %w", err)
	}
	var ggufs []fs.DirEntry
	config, tensors := false, false
	m.SizeBytes = 0
	for _, e := range entries {
		config = config || e.Name() == "config.json"
		tensors = tensors || strings.HasSuffix(e.Name(), ".safetensors")
		if strings.HasSuffix(strings.ToLower(e.Name()), ".gguf") {
			ggufs = append(ggufs, e)
		}
		if info, err := os.Stat(filepath.Join(m.Path, e.Name())); err == nil && info.Mode().IsRegular() {
			m.SizeBytes += info.Size()
		}
	}
	switch {
	case config && tensors:
		return m, nil
	case len(ggufs) == 1:
		return local(m.Ref, filepath.Join(m.Path, ggufs[0].Name()))
	case len(ggufs) > 1:
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("folder %s holds %d .gguf files; give one of them", m.Ref, len(ggufs))}
	}
	return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("folder %s holds no model: a folder in Hugging Face layout has config.json and .safetensors files (PyTorch .bin files are not read)", m.Ref)}
}
