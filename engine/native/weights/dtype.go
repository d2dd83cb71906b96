package weights

import (
	"fmt"
	"strings"
)

// DType is the type a tensor is stored as.
type DType uint8

// The types this package reads. The quantized ones are ggml's: blocks of 32 or
// 256 values of one row with common scales (see Dequantize).
const (
	F32 DType = iota
	F16
	BF16
	Q8_0
	Q4_0
	Q4_1
	Q4_K
	Q6_K
)

// layout is a row of the table of types: a block of so many values takes so
// many bytes.
type layout struct {
	name          string
	values, bytes int
}

var layouts = [...]layout{
	F32:  {"F32", 1, 4},
	F16:  {"F16", 1, 2},
	BF16: {"BF16", 1, 2},
	Q8_0: {"Q8_0", 32, 34},
	Q4_0: {"Q4_0", 32, 18},
	Q4_1: {"Q4_1", 32, 20},
	Q4_K: {"Q4_K", 256, 144},
	Q6_K: {"Q6_K", 256, 210},
}

// String returns the type's name as the formats spell it, such as "Q4_1".
func (d DType) String() string {
	if int(d) >= len(layouts) {
		return fmt.Sprintf("dtype(%d)", uint8(d))
	}
	return layouts[d].name
}

// BlockValues returns how many values of a row are stored together; a row is a
// multiple of it.
func (d DType) BlockValues() int { return layouts[d].values }

// BlockBytes returns the bytes of one block.
func (d DType) BlockBytes() int { return layouts[d].bytes }

// Supported lists the types this package reads, for messages.
func Supported() string {
	names := make([]string, len(layouts))
	for i, l := range layouts {
		names[i] = l.name
	}
	return strings.Join(names, ", ")
}

// Tensor is one tensor of a file.
type Tensor struct {
	// Name is the tensor's name in the file.
	Name string
	// DType is the stored type.
	DType DType
	// Shape holds the dimensions, outermost first: rows, then columns. A scalar
	// has none.
	Shape []int
	// Data is the tensor's bytes, mapped and read-only, valid until the file is
	// closed.
	Data []byte
}

// Cols returns the length of a row: the last dimension.
func (t Tensor) Cols() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[len(t.Shape)-1]
}

// Rows returns the number of rows: the product of all dimensions but the last.
func (t Tensor) Rows() int {
	n := 1
	for i := 0; i+1 < len(t.Shape); i++ {
		n *= t.Shape[i]
	}
	return n
}

// rowBytes returns the bytes of one row.
func (t Tensor) rowBytes() int {
	l := layouts[t.DType]
	return t.Cols() / l.values * l.bytes
}

// row returns the bytes of one row, or an error when t is not that long.
func (t Tensor) row(row int) ([]byte, error) {
	if int(t.DType) >= len(layouts) {
		return nil, fmt.Errorf("read tensor %s: type %s is unknown", t.Name, t.DType)
	}
	n := t.rowBytes()
	if row < 0 || row >= t.Rows() || len(t.Data) < (row+1)*n || t.Cols()%layouts[t.DType].values != 0 {
		return nil, fmt.Errorf("read tensor %s of type %s and shape %v: no row %d in %d bytes", t.Name, t.DType, t.Shape, row, len(t.Data))
	}
	return t.Data[row*n : (row+1)*n : (row+1)*n], nil
}

// sizeOf returns the bytes a tensor of this type and shape occupies. ok is false
// when a dimension is absurd or rows are not whole blocks; then why says so.
func sizeOf(d DType, shape []int) (size int64, why string) {
	l := layouts[d]
	elements := int64(1)
	for _, n := range shape {
		if n <= 0 || n > maxDim || elements > maxElements/int64(n) {
			return 0, "its dimensions are out of range"
		}
		elements *= int64(n)
	}
	if len(shape) > 0 && shape[len(shape)-1]%l.values != 0 || len(shape) == 0 && l.values != 1 {
		return 0, fmt.Sprintf("rows of type %s hold a multiple of %d values", l.name, l.values)
	}
	return elements / int64(l.values) * int64(l.bytes), ""
}
