package weights

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// GGUF is an open GGUF file.
//
// The format, little-endian throughout:
//
//	"GGUF"  u32 version (2 or 3)  u64 tensors  u64 keys
//	keys ×:    string key, u32 type, value
//	tensors ×: string name, u32 dims, u64 dim × dims (innermost first),
//	           u32 type, u64 offset into the data
//	padding to general.alignment (default 32), then the data
//
// A string is a u64 length and its bytes; an array is a u32 element type, a u64
// count and the elements. Offsets are multiples of the alignment.
type GGUF struct {
	m       *mapping
	meta    Meta
	tensors map[string]Tensor
	foreign map[string]string
	header  int
}

// ggmlTypes maps the type numbers of a GGUF to types of this package.
var ggmlTypes = map[uint32]DType{0: F32, 1: F16, 2: Q4_0, 3: Q4_1, 8: Q8_0, 12: Q4_K, 14: Q6_K, 30: BF16}

// ggmlNames names the types a GGUF may hold that this package does not read.
var ggmlNames = map[uint32]string{6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K",
	16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
	24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}

// OpenGGUF opens and checks a GGUF file. Errors are of KindNotFound, KindCorrupt
// or KindInvalid.
func OpenGGUF(path string) (*GGUF, error) {
	m, err := openMapping(path, 24)
	if err != nil {
		return nil, err
	}
	g, err := parseGGUF(m)
	if err != nil {
		_ = m.close() // the error that matters is the other
		return nil, err
	}
	return g, nil
}

// Tensor returns the tensor of that name.
func (g *GGUF) Tensor(name string) (Tensor, bool) {
	t, ok := g.tensors[name]
	return t, ok
}

// Foreign returns the stored type of a tensor that is in the file in a type
// this package does not read.
func (g *GGUF) Foreign(name string) (dtype string, ok bool) {
	dtype, ok = g.foreign[name]
	return dtype, ok
}

// Names lists the tensors in alphabetical order.
func (g *GGUF) Names() []string { return names(g.tensors) }

// Meta returns the file's metadata.
func (g *GGUF) Meta() *Meta { return &g.meta }

// Header returns the bytes before the tensors' data: metadata and tensor table.
// They are mapped and valid until Close.
func (g *GGUF) Header() []byte { return g.m.data[:g.header] }

// SizeBytes returns the size of the file.
func (g *GGUF) SizeBytes() int64 { return int64(len(g.m.data)) }

// Release drops the file's pages from this process's memory; they are read
// again when touched.
func (g *GGUF) Release() { g.m.release() }

// Close unmaps the file. Tensors handed out may not be used any more; the file
// has neither tensors nor metadata afterwards. Closing twice does nothing.
func (g *GGUF) Close() error {
	g.tensors, g.foreign, g.meta.values, g.header = nil, nil, nil, 0
	return g.m.close()
}

func names(tensors map[string]Tensor) []string {
	out := make([]string, 0, len(tensors))
	for n := range tensors {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// reader walks the header of a GGUF. After the first fault it returns zeros and
// keeps the error.
type reader struct {
	path string
	data []byte
	at   int
	err  error
}

// fail keeps the first error.
func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// take returns the next n bytes.
func (r *reader) take(n uint64, what string) []byte {
	if r.err == nil && n > uint64(len(r.data)-r.at) {
		r.fail(corrupt("%s ends within its header (%s at byte %d): %s", r.path, what, r.at, redo))
	}
	if r.err != nil {
		return nil
	}
	b := r.data[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return b
}

func (r *reader) u32(what string) uint32 {
	if b := r.take(4, what); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64(what string) uint64 {
	if b := r.take(8, what); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) bytes(what string) []byte { return r.take(r.u64(what), what) }

// name reads a key or a tensor's name.
func (r *reader) name(what string) string {
	b := r.bytes(what)
	if r.err == nil && (len(b) == 0 || len(b) > maxName || !utf8.Valid(b)) {
		r.fail(corrupt("%s has a %s that is not text: %s", r.path, what, redo))
	}
	return string(b)
}

func parseGGUF(m *mapping) (*GGUF, error) {
	r := &reader{path: m.path, data: m.data}
	tensors, keys, err := r.preamble()
	if err != nil {
		return nil, err
	}
	g := &GGUF{m: m, meta: Meta{path: m.path, values: map[string]value{}}, tensors: map[string]Tensor{}, foreign: map[string]string{}}
	for i := uint64(0); i < keys && r.err == nil; i++ {
		key := r.name("metadata key")
		if g.meta.Has(key) {
			r.fail(corrupt("%s has the metadata key %s twice: %s", r.path, printable([]byte(key)), redo))
		}
		v := r.value(key)
		if r.err == nil {
			g.meta.values[key] = v
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	align, err := g.alignment()
	if err != nil {
		return nil, err
	}
	if err := g.table(r, tensors, align); err != nil {
		return nil, err
	}
	return g, g.whole()
}

// preamble reads the magic, the version and the two counts.
func (r *reader) preamble() (tensors, keys uint64, err error) {
	if magic := r.take(4, "magic"); string(magic) != "GGUF" {
		return 0, 0, corrupt("%s is not a GGUF file: it begins with %q", r.path, magic)
	}
	switch version := r.u32("version"); version {
	case 2, 3:
	case 2 << 24, 3 << 24:
		return 0, 0, invalid("%s is a big-endian GGUF, which is not supported: use the little-endian one", r.path)
	default:
		return 0, 0, invalid("%s is GGUF version %d; versions 2 and 3 are supported: convert the model again", r.path, version)
	}
	tensors, keys = r.u64("tensor count"), r.u64("key count")
	// An entry takes at least 13 bytes, so larger counts are lies.
	if most := uint64(len(r.data)) / 13; r.err == nil && (tensors > most || keys > most) {
		r.fail(corrupt("%s claims %d tensors and %d keys, more than fit in its %d bytes: %s", r.path, tensors, keys, len(r.data), redo))
	}
	return tensors, keys, r.err
}

// value reads the value of a key.
func (r *reader) value(key string) value {
	v := value{kind: valueType(r.u32("value type"))}
	switch v.kind {
	case typeString:
		v.raw = r.bytes("value of " + key)
	case typeArray:
		v.elem, v.count, v.raw = r.array(key, 1)
	default:
		v.raw = r.take(r.size(v.kind, key), "value of "+key)
	}
	return v
}

// size returns the bytes of a scalar.
func (r *reader) size(t valueType, key string) uint64 {
	if int(t) >= len(valueTypes) {
		r.fail(corrupt("metadata key %s of %s has the unknown %s: %s", printable([]byte(key)), r.path, t, redo))
		return 0
	}
	return uint64(valueTypes[t].size)
}

// array walks over an array, so that all of it is known to be in the file.
func (r *reader) array(key string, depth int) (elem valueType, count int, raw []byte) {
	elem = valueType(r.u32("element type"))
	n := r.u64("array length")
	if depth > maxArrayDepth {
		r.fail(corrupt("metadata key %s of %s nests arrays deeper than %d: %s", printable([]byte(key)), r.path, maxArrayDepth, redo))
	}
	if r.err == nil && n > uint64(len(r.data)-r.at) {
		r.fail(corrupt("metadata key %s of %s claims %d elements, more than the file has bytes: %s", printable([]byte(key)), r.path, n, redo))
	}
	begin := r.at
	switch {
	case r.err != nil:
		return 0, 0, nil
	case elem == typeString:
		for i := uint64(0); i < n && r.err == nil; i++ {
			r.bytes("array of strings")
		}
	case elem == typeArray:
		for i := uint64(0); i < n && r.err == nil; i++ {
			r.array(key, depth+1)
		}
	default:
		r.take(n*r.size(elem, key), "array")
	}
	if r.err != nil {
		return 0, 0, nil
	}
	return elem, int(n), r.data[begin:r.at:r.at]
}

func (g *GGUF) alignment() (int, error) {
	if !g.meta.Has("general.alignment") {
		return 32, nil
	}
	n, err := g.meta.Uint("general.alignment")
	if err != nil {
		return 0, err
	}
	if n == 0 || n&(n-1) != 0 || n > maxAlignment {
		return 0, corrupt("%s has the alignment %d, which is not a small power of two: %s", g.m.path, n, redo)
	}
	return int(n), nil
}

// ggufEntry is a row of the tensor table.
type ggufEntry struct {
	name   string
	kind   uint32
	shape  []int
	offset uint64
}

// table reads the tensor table and places the tensors in the data.
func (g *GGUF) table(r *reader, tensors uint64, align int) error {
	var entries []ggufEntry
	for i := uint64(0); i < tensors && r.err == nil; i++ {
		entries = append(entries, r.entry())
	}
	if r.err != nil {
		return r.err
	}
	begin := (r.at + align - 1) &^ (align - 1)
	if begin > len(r.data) {
		if len(entries) > 0 {
			return corrupt("%s ends before its tensors: %s", r.path, redo)
		}
		begin = len(r.data)
	}
	g.header = r.at
	data := r.data[begin:]
	var extents []extent
	for _, e := range entries {
		_, twice := g.tensors[e.name]
		_, foreign := g.foreign[e.name]
		if twice || foreign {
			return corrupt("%s has the tensor %s twice: %s", r.path, printable([]byte(e.name)), redo)
		}
		if e.offset%uint64(align) != 0 || e.offset > uint64(len(data)) {
			return corrupt("tensor %s of %s begins at byte %d of %d, which is outside the data or not aligned to %d: %s",
				printable([]byte(e.name)), r.path, e.offset, len(data), align, redo)
		}
		d, ok := ggmlTypes[e.kind]
		if !ok {
			g.foreign[e.name] = foreignName(e.kind)
			continue
		}
		size, why := sizeOf(d, e.shape)
		if why != "" {
			return corrupt("tensor %s of %s has the impossible shape %v: %s; %s", printable([]byte(e.name)), r.path, e.shape, why, redo)
		}
		if size > int64(len(data))-int64(e.offset) {
			return corrupt("tensor %s of %s needs %d bytes at %d, but the data has %d: %s", printable([]byte(e.name)), r.path, size, e.offset, len(data), redo)
		}
		from, to := int(e.offset), int(e.offset)+int(size)
		g.tensors[e.name] = Tensor{Name: e.name, DType: d, Shape: e.shape, Data: data[from:to:to]}
		extents = append(extents, extent{e.name, int64(from), int64(to)})
	}
	if a, b, found := overlap(extents); found {
		return corrupt("tensors %s and %s of %s share bytes: %s", printable([]byte(a.name)), printable([]byte(b.name)), r.path, redo)
	}
	return nil
}

func foreignName(kind uint32) string {
	if n, ok := ggmlNames[kind]; ok {
		return n
	}
	return "of an unknown kind"
}

// entry reads one row of the tensor table.
func (r *reader) entry() ggufEntry {
	e := ggufEntry{name: r.name("tensor name")}
	dims := r.u32("number of dimensions")
	if r.err == nil && dims > maxDims {
		r.fail(corrupt("tensor %s of %s claims %d dimensions: %s", printable([]byte(e.name)), r.path, dims, redo))
	}
	if r.err != nil {
		return e
	}
	e.shape = make([]int, dims)
	for i := range e.shape {
		n := r.u64("dimension")
		if r.err == nil && (n == 0 || n > maxDim) {
			r.fail(corrupt("tensor %s of %s has a dimension of %d: %s", printable([]byte(e.name)), r.path, n, redo))
		}
		e.shape[len(e.shape)-1-i] = int(n)
	}
	e.kind = r.u32("tensor type")
	e.offset = r.u64("tensor offset")
	return e
}

// whole refuses a file that is one part of a split model.
func (g *GGUF) whole() error {
	if !g.meta.Has("split.count") {
		return nil
	}
	if n, err := g.meta.Uint("split.count"); err != nil || n <= 1 {
		return err
	}
	return invalid("%s is one part of a split GGUF, which is not supported: join the parts with llama.cpp's llama-gguf-split --merge", g.m.path)
}
