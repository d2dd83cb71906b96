package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
)

// The names a Hugging Face folder gives its weights.
const (
	singleName = "model.safetensors"
	indexName  = "model.safetensors.index.json"
)

// Safetensors is the open weights of a folder in Hugging Face layout: one file,
// or several with an index.
//
// A file is a u64 length (little-endian), a JSON header of that length and the
// data. The header maps names to {"dtype", "shape", "data_offsets": [begin, end]},
// offsets counting from the data's first byte; tensors cover the data without a
// gap. "__metadata__" holds strings.
type Safetensors struct {
	dir     string
	files   []shard
	tensors map[string]Tensor
	foreign map[string]string
}

// shard is one mapped file and the length of its header.
type shard struct {
	m      *mapping
	header int
}

// OpenSafetensors opens and checks the weights in dir: model.safetensors, or the
// files model.safetensors.index.json names. Errors are of KindNotFound,
// KindCorrupt or KindInvalid.
func OpenSafetensors(dir string) (*Safetensors, error) {
	s := &Safetensors{dir: dir, tensors: map[string]Tensor{}, foreign: map[string]string{}}
	if err := s.open(); err != nil {
		_ = s.Close() // the error that matters is the other
		return nil, err
	}
	return s, nil
}

// Tensor returns the tensor of that name.
func (s *Safetensors) Tensor(name string) (Tensor, bool) {
	t, ok := s.tensors[name]
	return t, ok
}

// Foreign returns the stored type of a tensor that is there in a type this
// package does not read.
func (s *Safetensors) Foreign(name string) (dtype string, ok bool) {
	dtype, ok = s.foreign[name]
	return dtype, ok
}

// Names lists the tensors in alphabetical order.
func (s *Safetensors) Names() []string { return names(s.tensors) }

// Header returns the headers of all files, one after the other.
func (s *Safetensors) Header() []byte {
	var b []byte
	for _, f := range s.files {
		b = append(b, f.m.data[:f.header]...)
	}
	return b
}

// SizeBytes returns the size of all files together.
func (s *Safetensors) SizeBytes() int64 {
	var n int64
	for _, f := range s.files {
		n += int64(len(f.m.data))
	}
	return n
}

// Release drops the files' pages from this process's memory; they are read
// again when touched.
func (s *Safetensors) Release() {
	for _, f := range s.files {
		f.m.release()
	}
}

// Close unmaps the files. Tensors handed out may not be used any more, and there
// are none afterwards. Closing twice does nothing.
func (s *Safetensors) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.m.close())
	}
	s.files, s.tensors, s.foreign = nil, nil, nil
	return errors.Join(errs...)
}

func (s *Safetensors) open() error {
	if info, err := os.Stat(s.dir); err == nil && !info.IsDir() {
		return invalid("%s is a file: name the folder that holds model.safetensors and config.json", s.dir)
	}
	if _, err := os.Stat(filepath.Join(s.dir, singleName)); err == nil {
		_, err := s.add(singleName)
		return err
	}
	index, err := readIndex(filepath.Join(s.dir, indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return s.missing()
	}
	if err != nil {
		return err
	}
	return s.addIndexed(index)
}

// missing says why a folder without weights of ours has none.
func (s *Safetensors) missing() error {
	msg := fmt.Sprintf("%s holds neither %s nor %s", s.dir, singleName, indexName)
	if old, _ := filepath.Glob(filepath.Join(s.dir, "pytorch_model*.bin")); len(old) > 0 {
		return invalid("%s, only PyTorch's pickled weights, which are not read: use a revision of the model with safetensors", msg)
	}
	return &dynamo.Error{Kind: dynamo.KindNotFound, Message: msg + ": name a folder in Hugging Face layout, or a .gguf file"}
}

// readIndex returns the index's map from tensor to file.
func readIndex(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxIndex {
		return nil, corrupt("%s is larger than %d bytes: %s", path, maxIndex, redo)
	}
	return parseIndex(path, b)
}

// parseIndex decodes an index. File names must be plain names in the folder.
func parseIndex(path string, b []byte) (map[string]string, error) {
	var index struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		return nil, corrupt("%s is not a safetensors index (%v): %s", path, err, redo)
	}
	if len(index.Map) == 0 {
		return nil, corrupt("%s names no tensor: %s", path, redo)
	}
	for _, file := range index.Map {
		if file == "" || file != filepath.Base(file) || !filepath.IsLocal(file) || strings.ContainsAny(file, `/\`) {
			return nil, corrupt("%s names the file %s, which is not a plain file name beside it: do not use this model", path, printable([]byte(file)))
		}
	}
	return index.Map, nil
}

// addIndexed opens every file of the index and checks that the tensors are where
// it says.
func (s *Safetensors) addIndexed(index map[string]string) error {
	held := map[string]map[string]bool{}
	for _, file := range index {
		held[file] = nil
	}
	if len(held) > maxShards {
		return corrupt("%s names %d files, limit %d: %s", filepath.Join(s.dir, indexName), len(held), maxShards, redo)
	}
	order := make([]string, 0, len(held))
	for file := range held {
		order = append(order, file)
	}
	slices.Sort(order)
	for _, file := range order {
		names, err := s.add(file)
		if err != nil {
			return err
		}
		held[file] = names
	}
	for name, file := range index {
		if !held[file][name] {
			return corrupt("%s does not hold the tensor %s that the index places there: %s", filepath.Join(s.dir, file), printable([]byte(name)), redo)
		}
	}
	return nil
}

// add maps a file, takes over its tensors and returns their names.
func (s *Safetensors) add(file string) (map[string]bool, error) {
	m, err := openMapping(filepath.Join(s.dir, file), 8)
	if err != nil {
		return nil, err
	}
	s.files = append(s.files, shard{m: m})
	entries, header, err := parseSafetensors(m.path, m.data)
	if err != nil {
		return nil, err
	}
	s.files[len(s.files)-1].header = header
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		_, twice := s.tensors[e.name]
		_, foreign := s.foreign[e.name]
		if twice || foreign {
			return nil, corrupt("tensor %s is in two files of %s: %s", printable([]byte(e.name)), s.dir, redo)
		}
		names[e.name] = true
		if e.foreign != "" {
			s.foreign[e.name] = e.foreign
			continue
		}
		from, to := header+int(e.begin), header+int(e.end)
		s.tensors[e.name] = Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Data: m.data[from:to:to]}
	}
	return names, nil
}

// entry is one tensor of a safetensors header, checked.
type entry struct {
	extent
	dtype   DType
	shape   []int
	foreign string // the type's name, when it is not one of ours
}

var safetensorsTypes = map[string]DType{"F32": F32, "F16": F16, "BF16": BF16}

// parseSafetensors checks a whole file and returns its tensors and the length
// of everything before the data.
func parseSafetensors(path string, data []byte) ([]entry, int, error) {
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader || n > uint64(len(data)-8) {
		return nil, 0, corrupt("%s claims a header of %d bytes in a file of %d: %s", path, n, len(data), redo)
	}
	begin := 8 + int(n)
	var raw map[string]jsontext.Value
	if err := json.Unmarshal(bytes.TrimRight(data[8:begin], " "), &raw); err != nil {
		return nil, 0, corrupt("%s has a header that is not JSON (%v): %s", path, err, redo)
	}
	entries := make([]entry, 0, len(raw))
	extents := make([]extent, 0, len(raw))
	var covered int64
	for name, v := range raw {
		if name == "__metadata__" {
			continue
		}
		e, err := parseEntry(path, name, v, int64(len(data)-begin))
		if err != nil {
			return nil, 0, err
		}
		entries, extents = append(entries, e), append(extents, e.extent)
		covered += e.end - e.begin
	}
	if a, b, found := overlap(extents); found {
		return nil, 0, corrupt("tensors %s and %s of %s share bytes: %s", printable([]byte(a.name)), printable([]byte(b.name)), path, redo)
	}
	if covered != int64(len(data)-begin) {
		return nil, 0, corrupt("%s has %d bytes of data, but its tensors cover %d: %s", path, len(data)-begin, covered, redo)
	}
	return entries, begin, nil
}

// parseEntry decodes and checks one tensor's row of the header; size is that of
// the data.
func parseEntry(path, name string, raw jsontext.Value, size int64) (entry, error) {
	e := entry{extent: extent{name: name}}
	var row struct {
		DType   string  `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets []int64 `json:"data_offsets"`
	}
	bad := func(why string, args ...any) (entry, error) {
		return e, corrupt("tensor %s of %s %s: %s", printable([]byte(name)), path, fmt.Sprintf(why, args...), redo)
	}
	if err := json.Unmarshal(raw, &row); err != nil {
		return bad("has a bad row in the header (%v)", err)
	}
	if name == "" || len(name) > maxName || len(row.Shape) > maxDims || len(row.Offsets) != 2 || row.DType == "" {
		return bad("has a bad row in the header")
	}
	e.begin, e.end = row.Offsets[0], row.Offsets[1]
	if e.begin < 0 || e.end < e.begin || e.end > size {
		return bad("lies at bytes %d to %d of %d", e.begin, e.end, size)
	}
	for _, n := range row.Shape {
		if n < 0 || n > maxDim {
			return bad("has a dimension of %d", n)
		}
		e.shape = append(e.shape, int(n))
	}
	d, ok := safetensorsTypes[row.DType]
	if !ok || slices.Contains(e.shape, 0) {
		// An empty tensor is as unreadable as one of another type.
		e.foreign = printable([]byte(row.DType))
		return e, nil
	}
	e.dtype = d
	want, why := sizeOf(d, e.shape)
	if why != "" {
		return bad("has the impossible shape %v: %s", e.shape, why)
	}
	if want != e.end-e.begin {
		return bad("has %d bytes for type %s and shape %v, which need %d", e.end-e.begin, d, e.shape, want)
	}
	return e, nil
}
