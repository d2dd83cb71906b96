package weights_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// file builds the bytes of a GGUF piece by piece.
type file struct{ bytes.Buffer }

func (f *file) put(values ...any) *file {
	for _, v := range values {
		switch v := v.(type) {
		case string:
			f.put(uint64(len(v)))
			f.WriteString(v)
		case []byte:
			f.Write(v)
		default:
			_ = binary.Write(f, binary.LittleEndian, v) // fixed-size values only
		}
	}
	return f
}

// gguf begins a file with so many tensors and keys.
func gguf(tensors, keys uint64) *file {
	return new(file).put([]byte("GGUF"), uint32(3), tensors, keys)
}

// tensor is a row of the tensor table.
func (f *file) tensor(name string, kind uint32, offset uint64, dims ...uint64) *file {
	return f.put(name, uint32(len(dims)), dims, kind, offset)
}

// data pads to 32 bytes and adds n zeros.
func (f *file) data(n int) []byte {
	f.Write(make([]byte, (32-f.Len()%32)%32+n))
	return f.Bytes()
}

const absurd = uint64(1) << 60

var hostileGGUF = map[string]struct {
	data []byte
	want string // in the message
	kind dynamo.Kind
}{
	"empty":             {nil, "0 bytes", dynamo.KindCorrupt},
	"short":             {[]byte("GGUF\x03"), "5 bytes", dynamo.KindCorrupt},
	"html":              {[]byte("<!DOCTYPE html><html><body>not found</body>"), "not a GGUF", dynamo.KindCorrupt},
	"version 1":         {new(file).put([]byte("GGUF"), uint32(1), uint64(0), uint64(0)).data(0), "version 1", dynamo.KindInvalid},
	"big-endian":        {new(file).put([]byte("GGUF"), uint32(3<<24), uint64(0), uint64(0)).data(0), "big-endian", dynamo.KindInvalid},
	"tensor count":      {gguf(absurd, 0).data(0), "claims", dynamo.KindCorrupt},
	"key count":         {gguf(0, absurd).data(0), "claims", dynamo.KindCorrupt},
	"count past end":    {gguf(0, 3).put("k", uint32(0), uint8(1)).data(64), "not text", dynamo.KindCorrupt},
	"key length":        {gguf(0, 1).put(absurd, uint64(0)).data(0), "ends within", dynamo.KindCorrupt},
	"value type":        {gguf(0, 1).put("k", uint32(99)).data(64), "unknown type 99", dynamo.KindCorrupt},
	"string length":     {gguf(0, 1).put("k", uint32(8), absurd).data(64), "ends within", dynamo.KindCorrupt},
	"array length":      {gguf(0, 1).put("k", uint32(9), uint32(10), absurd).data(64), "claims", dynamo.KindCorrupt},
	"array just long":   {gguf(0, 1).put("k", uint32(9), uint32(10), uint64(60)).data(64), "ends within", dynamo.KindCorrupt},
	"string array":      {gguf(0, 1).put("k", uint32(9), uint32(8), uint64(3), "a", "b").Bytes(), "ends within", dynamo.KindCorrupt},
	"array type":        {gguf(0, 1).put("k", uint32(9), uint32(77), uint64(1)).data(64), "unknown type 77", dynamo.KindCorrupt},
	"deep array":        {gguf(0, 1).put("k", uint32(9), bytes.Repeat([]byte{9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, 100)).data(0), "nests", dynamo.KindCorrupt},
	"key twice":         {gguf(0, 2).put("k", uint32(0), uint8(1), "k", uint32(0), uint8(1)).data(64), "twice", dynamo.KindCorrupt},
	"key not text":      {gguf(0, 1).put("\xff\xfe", uint32(0), uint8(1)).data(64), "not text", dynamo.KindCorrupt},
	"alignment 0":       {gguf(0, 1).put("general.alignment", uint32(4), uint32(0)).data(64), "alignment 0", dynamo.KindCorrupt},
	"alignment 33":      {gguf(0, 1).put("general.alignment", uint32(4), uint32(33)).data(64), "alignment 33", dynamo.KindCorrupt},
	"alignment huge":    {gguf(0, 1).put("general.alignment", uint32(10), uint64(1)<<63).data(64), "alignment", dynamo.KindCorrupt},
	"alignment string":  {gguf(0, 1).put("general.alignment", uint32(8), "x").data(64), "general.alignment", dynamo.KindInvalid},
	"dimensions":        {gguf(1, 0).put("t", uint32(1<<31)).data(64), "dimensions", dynamo.KindCorrupt},
	"dimension 0":       {gguf(1, 0).tensor("t", 0, 0, 0, 4).data(64), "dimension of 0", dynamo.KindCorrupt},
	"dimension huge":    {gguf(1, 0).tensor("t", 0, 0, absurd).data(64), "dimension of", dynamo.KindCorrupt},
	"product overflows": {gguf(1, 0).tensor("t", 0, 0, 1<<32, 1<<32).data(64), "out of range", dynamo.KindCorrupt},
	"part of a block":   {gguf(1, 0).tensor("t", 3, 0, 33, 2).data(640), "multiple of 32", dynamo.KindCorrupt},
	"offset":            {gguf(1, 0).tensor("t", 0, absurd, 4).data(64), "outside the data", dynamo.KindCorrupt},
	"offset unaligned":  {gguf(1, 0).tensor("t", 0, 4, 4).data(64), "not aligned", dynamo.KindCorrupt},
	"truncated data":    {gguf(1, 0).tensor("t", 0, 32, 16).data(95), "needs 64 bytes", dynamo.KindCorrupt},
	"no data":           {gguf(1, 0).tensor("t", 0, 0, 16).Bytes(), "ends before", dynamo.KindCorrupt},
	"overlap":           {gguf(2, 0).tensor("t", 0, 0, 16).tensor("u", 0, 32, 16).data(128), "share bytes", dynamo.KindCorrupt},
	"tensor twice":      {gguf(2, 0).tensor("t", 0, 0, 8).tensor("t", 0, 32, 8).data(128), "twice", dynamo.KindCorrupt},
	"split":             {gguf(0, 1).put("split.count", uint32(2), uint16(5)).data(64), "--merge", dynamo.KindInvalid},
}

// errorOf checks that err is one that says what to do and has the kind wanted.
func errorOf(t *testing.T, err error, want string, kind dynamo.Kind) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), want) || dynamo.KindOf(err) != kind {
		t.Errorf("error %q of kind %s, want %q of kind %s", err, dynamo.KindOf(err), want, kind)
	}
}

func TestHostileGGUF(t *testing.T) {
	for name, c := range hostileGGUF {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.gguf")
			if err := os.WriteFile(path, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := weights.OpenGGUF(path)
			errorOf(t, err, c.want, c.kind)
		})
	}
}

// TestTruncatedGGUF cuts a sound file everywhere: each piece is refused.
func TestTruncatedGGUF(t *testing.T) {
	whole, err := os.ReadFile("testdata/golden.gguf")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	for n := 0; n < len(whole)-32; n += 1 + n/40 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if g, err := weights.OpenGGUF(path); err == nil {
			g.Close()
			t.Fatalf("opened the first %d of %d bytes", n, len(whole))
		}
	}
}

func TestForeignType(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, gguf(1, 0).tensor("t", 13, 0, 256).data(512), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := weights.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if d, ok := g.Foreign("t"); !ok || d != "Q5_K" {
		t.Errorf("foreign type %q, %v, want Q5_K", d, ok)
	}
}

// safe builds a safetensors file.
func safe(header string, data int) []byte {
	return append(new(file).put(header).Bytes(), make([]byte, data)...)
}

const row16 = `{"dtype":"F32","shape":[4],"data_offsets":[0,16]}`

var hostileSafetensors = map[string]struct {
	data []byte
	want string
}{
	"empty":         {nil, "0 bytes"},
	"header length": {new(file).put(absurd).Bytes(), "claims a header"},
	"header past":   {append(new(file).put(uint64(100)).Bytes(), `{}`...), "claims a header"},
	"not json":      {safe(`{"t":`, 0), "not JSON"},
	"not an object": {safe(`[1,2]`, 0), "not JSON"},
	"twice":         {safe(`{"t":`+row16+`,"t":`+row16+`}`, 16), "not JSON"},
	"row":           {safe(`{"t":7}`, 16), "bad row"},
	"row types":     {safe(`{"t":{"dtype":"F32","shape":"4","data_offsets":[0,16]}}`, 16), "bad row"},
	"fraction":      {safe(`{"t":{"dtype":"F32","shape":[4.5],"data_offsets":[0,18]}}`, 18), "bad row"},
	"offsets":       {safe(`{"t":{"dtype":"F32","shape":[4],"data_offsets":[0]}}`, 16), "bad row"},
	"backwards":     {safe(`{"t":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}`, 16), "lies at"},
	"negative":      {safe(`{"t":{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}}`, 16), "lies at"},
	"outside":       {safe(`{"t":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}`, 16), "lies at"},
	"size":          {safe(`{"t":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}`, 16), "need 20"},
	"shape":         {safe(`{"t":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}`, 16), "dimension of -4"},
	"product":       {safe(`{"t":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,16]}}`, 16), "out of range"},
	"overlap":       {safe(`{"t":`+row16+`,"u":`+row16+`}`, 32), "share bytes"},
	"gap":           {safe(`{"t":`+row16+`}`, 20), "cover 16"},
}

func TestHostileSafetensors(t *testing.T) {
	for name, c := range hostileSafetensors {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := weights.OpenSafetensors(dir)
			errorOf(t, err, c.want, dynamo.KindCorrupt)
		})
	}
}

func TestHostileIndex(t *testing.T) {
	good := safe(`{"t":`+row16+`}`, 16)
	for name, c := range map[string]struct {
		index, want string
		kind        dynamo.Kind
	}{
		"traversal": {`{"weight_map":{"t":"../a.safetensors"}}`, "plain file name", dynamo.KindCorrupt},
		"absolute":  {`{"weight_map":{"t":"/etc/passwd"}}`, "plain file name", dynamo.KindCorrupt},
		"backslash": {`{"weight_map":{"t":"..\\a"}}`, "plain file name", dynamo.KindCorrupt},
		"dots":      {`{"weight_map":{"t":".."}}`, "plain file name", dynamo.KindCorrupt},
		"no name":   {`{"weight_map":{"t":""}}`, "plain file name", dynamo.KindCorrupt},
		"not json":  {`{"weight_map":`, "not a safetensors index", dynamo.KindCorrupt},
		"wrong map": {`{"weight_map":[]}`, "not a safetensors index", dynamo.KindCorrupt},
		"empty":     {`{}`, "names no tensor", dynamo.KindCorrupt},
		"no shard":  {`{"weight_map":{"t":"b.safetensors"}}`, "b.safetensors", dynamo.KindNotFound},
		"lying":     {`{"weight_map":{"u":"a.safetensors"}}`, "does not hold the tensor u", dynamo.KindCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, b := range map[string][]byte{"a.safetensors": good, "model.safetensors.index.json": []byte(c.index)} {
				if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := weights.OpenSafetensors(dir)
			errorOf(t, err, c.want, c.kind)
		})
	}
}

func TestNoWeights(t *testing.T) {
	dir := t.TempDir()
	_, err := weights.OpenSafetensors(dir)
	errorOf(t, err, "neither", dynamo.KindNotFound)
	_, err = weights.OpenGGUF(filepath.Join(dir, "none.gguf"))
	errorOf(t, err, "none.gguf", dynamo.KindNotFound)
	_, err = weights.OpenGGUF(dir)
	errorOf(t, err, "not a regular file", dynamo.KindInvalid)
	if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = weights.OpenSafetensors(dir)
	errorOf(t, err, "pickled", dynamo.KindInvalid)
	_, err = weights.OpenSafetensors(filepath.Join(dir, "pytorch_model.bin"))
	errorOf(t, err, "name the folder", dynamo.KindInvalid)
}

// open opens data, written to a file, and touches everything in it. It returns
// the bytes allocated.
func open(t *testing.T, file string, data []byte, opener func(dir string) (source, error)) uint64 {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := opener(dir)
	runtime.ReadMemStats(&after)
	if err != nil {
		return after.TotalAlloc - before.TotalAlloc
	}
	defer s.Close()
	for _, name := range s.Names() {
		x, _ := s.Tensor(name)
		dst := make([]float32, x.Cols())
		for _, row := range []int{0, x.Rows() - 1} {
			if err := weights.Dequantize(dst, x, row); err != nil {
				t.Fatalf("tensor %s was handed out but cannot be read: %v", name, err)
			}
		}
	}
	if g, ok := s.(*weights.GGUF); ok {
		m := g.Meta()
		for _, k := range m.Keys() {
			m.String(k)
			m.Uint(k)
			m.Float(k)
			m.Bool(k)
			m.Strings(k)
			m.Ints(k)
			m.Floats(k)
		}
	}
	return after.TotalAlloc - before.TotalAlloc
}

// allowance bounds what opening a file of n bytes may allocate.
func allowance(n int) uint64 { return 1<<20 + 100*uint64(n) }

func FuzzGGUF(f *testing.F) {
	whole, err := os.ReadFile("testdata/golden.gguf")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(gguf(2, 2).put("general.alignment", uint32(4), uint32(64), "k", uint32(9), uint32(8), uint64(2), "a", "bc").
		tensor("t", 3, 0, 32, 2).tensor("u", 0, 64, 4).data(128))
	for _, c := range hostileGGUF {
		f.Add(c.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n := open(t, "m.gguf", data, func(dir string) (source, error) {
			return weights.OpenGGUF(filepath.Join(dir, "m.gguf"))
		})
		if n > allowance(len(data)) {
			t.Errorf("opening %d bytes allocated %d", len(data), n)
		}
	})
}

func FuzzSafetensors(f *testing.F) {
	for _, c := range hostileSafetensors {
		f.Add(c.data)
	}
	f.Add(safe(`{"t":`+row16+`,"__metadata__":{"format":"pt"}}`, 16))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := open(t, "model.safetensors", data, func(dir string) (source, error) { return weights.OpenSafetensors(dir) })
		if n > allowance(len(data)) {
			t.Errorf("opening %d bytes allocated %d", len(data), n)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":16},"weight_map":{"t":"a.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"t":"../a.safetensors"}}`))
	good := safe(`{"t":`+row16+`}`, 16)
	f.Fuzz(func(t *testing.T, data []byte) {
		open(t, "model.safetensors.index.json", data, func(dir string) (source, error) {
			if err := os.WriteFile(filepath.Join(dir, "a.safetensors"), good, 0o600); err != nil {
				return nil, err
			}
			s, err := weights.OpenSafetensors(dir)
			if err == nil && !json.Valid(data) {
				t.Error("opened an index that is not JSON")
			}
			return s, err
		})
	})
}
