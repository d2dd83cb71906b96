package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// Block is the number of values along K that share one scale.
const Block = 32

// GroupRows is the number of output rows packed side by side: the lanes of a
// vector.
const GroupRows = lanes

// Format says how a Matrix stores its weights.
type Format uint8

// The formats. The quantized ones need K to be a multiple of Block.
const (
	// Q4 holds 4-bit codes q and per block a binary16 scale d and minimum m:
	// w = d·q + m.
	Q4 Format = iota
	// Q4S is Q4 with float32 scale and minimum.
	Q4S
	// Q8 holds signed 8-bit codes c and per block a binary16 scale d: w = d·c.
	Q8
	// Q8S is Q8 with a float32 scale.
	Q8S
	// F32 holds float32 weights.
	F32
	// BF16 holds bfloat16 weights.
	BF16
	// F16 holds binary16 weights.
	F16
)

// formatInfo is a row of the table of formats. For quantized formats the bytes
// are per block of 32 along K and group of 16 rows; for the others codeBytes is
// per single k.
type formatInfo struct {
	name       string
	quantized  bool
	codeBytes  int
	scaleBytes int
}

var formats = [...]formatInfo{
	Q4:   {"q4", true, 256, 64},
	Q4S:  {"q4s", true, 256, 128},
	Q8:   {"q8", true, 512, 32},
	Q8S:  {"q8s", true, 512, 64},
	F32:  {"f32", false, 64, 0},
	BF16: {"bf16", false, 32, 0},
	F16:  {"f16", false, 32, 0},
}

// String returns the format's name.
func (f Format) String() string {
	if int(f) >= len(formats) {
		return fmt.Sprintf("format(%d)", uint8(f))
	}
	return formats[f].name
}

// Quantized reports whether the format holds integer codes, the ones MatMulQ
// accepts.
func (f Format) Quantized() bool { return int(f) < len(formats) && formats[f].quantized }

// Matrix is a weight matrix of N output rows and K columns, packed for the
// kernels.
//
// Storage, group after group of 16 rows (rows past N are zero):
//
//	quantized: the codes of every block, then the scales of every block.
//	  Q4, Q4S codes: 4 × 64 bytes; byte 4r+i of part j holds for row r the code
//	    of k = 4j+i in its low and of k = 16+4j+i in its high half.
//	  Q8, Q8S codes: 8 × 64 bytes; byte 4r+i of part j holds for row r the code
//	    of k = 4j+i plus 128.
//	  scales: 16 scales, then (Q4, Q4S) 16 minima; binary16 or float32.
//	others: for every k the 16 rows' values.
//
// A group's size is rounded up to 64 bytes.
type Matrix struct {
	// N is the number of output rows, K the number of columns.
	N, K int
	// Format is how weights are stored.
	Format Format

	data        []byte // 64-byte aligned
	groupBytes  int
	scaleOffset int // of the scales within a group
}

// MatrixBytes returns the bytes a matrix occupies, or an error when the shape
// is impossible.
func MatrixBytes(f Format, n, k int) (int64, error) {
	if int(f) >= len(formats) {
		return 0, fmt.Errorf("matrix format %s is unknown", f)
	}
	if n <= 0 || k <= 0 || n > math.MaxInt32 || k > math.MaxInt32 {
		return 0, fmt.Errorf("matrix shape %d × %d is out of range", n, k)
	}
	if f.Quantized() && k%Block != 0 {
		return 0, fmt.Errorf("matrix of format %s has %d columns, which is not a multiple of %d", f, k, Block)
	}
	b := int64(groupBytes(f, k))
	groups := int64((n + lanes - 1) / lanes)
	if b > math.MaxInt64/2/groups || b*groups > math.MaxInt/2 {
		return 0, fmt.Errorf("matrix shape %d × %d is out of range", n, k)
	}
	return b * groups, nil
}

func groupBytes(f Format, k int) int {
	i := formats[f]
	if i.quantized {
		return roundUp64(k / Block * (i.codeBytes + i.scaleBytes))
	}
	return roundUp64(k * i.codeBytes)
}

func roundUp64(n int) int { return (n + 63) &^ 63 }

// NewMatrix returns a zero matrix on the heap. It fails when the shape is
// impossible.
func NewMatrix(f Format, n, k int) (*Matrix, error) {
	size, err := MatrixBytes(f, n, k)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, size+63)
	skip := int(-uintptr(unsafe.Pointer(&buf[0])) & 63)
	return NewMatrixIn(f, n, k, buf[skip:skip+int(size)])
}

// NewMatrixIn returns a matrix over buf, which the caller owns, has zeroed and
// keeps for the matrix's life. It must be 64-byte aligned and at least
// MatrixBytes long.
func NewMatrixIn(f Format, n, k int, buf []byte) (*Matrix, error) {
	size, err := MatrixBytes(f, n, k)
	if err != nil {
		return nil, err
	}
	if int64(len(buf)) < size || uintptr(unsafe.Pointer(&buf[0]))&63 != 0 {
		return nil, fmt.Errorf("matrix storage of %d bytes is too short for %d or not 64-byte aligned", len(buf), size)
	}
	m := &Matrix{N: n, K: k, Format: f, data: buf[:size:size], groupBytes: groupBytes(f, k)}
	if f.Quantized() {
		m.scaleOffset = k / Block * formats[f].codeBytes
	}
	return m, nil
}

// SizeBytes returns the bytes the weights occupy.
func (m *Matrix) SizeBytes() int64 { return int64(len(m.data)) }

// Groups returns the number of groups of 16 rows, the last one padded.
func (m *Matrix) Groups() int { return (m.N + lanes - 1) / lanes }

// group returns the storage of group g.
func (m *Matrix) group(g int) []byte {
	return m.data[g*m.groupBytes : (g+1)*m.groupBytes]
}

// row checks that row exists and returns its group's storage and its lane.
func (m *Matrix) row(row int) ([]byte, int) {
	if uint(row) >= uint(m.N) {
		panic(fmt.Sprintf("BUG: row %d of a matrix with %d rows", row, m.N))
	}
	return m.group(row / lanes), row % lanes
}

// SetRowQ4 packs one row of a Q4 or Q4S matrix: K codes of 0…15, one in a byte,
// and K/32 scales and minima, which Q4 rounds to binary16. Rows may be set
// concurrently.
func (m *Matrix) SetRowQ4(row int, codes []byte, scale, min []float32) {
	if m.Format != Q4 && m.Format != Q4S {
		panic("BUG: 4-bit row for a matrix of format " + m.Format.String())
	}
	data, lane := m.row(row)
	codes, scale, min = codes[:m.K], scale[:m.K/Block], min[:m.K/Block]
	for b := range scale {
		c := codes[b*Block : b*Block+Block : b*Block+Block]
		to := data[b*256 : b*256+256 : b*256+256]
		for j := 0; j < 4; j++ {
			lo := binary.LittleEndian.Uint32(c[4*j:])
			hi := binary.LittleEndian.Uint32(c[16+4*j:])
			binary.LittleEndian.PutUint32(to[64*j+4*lane:], lo&0x0f0f0f0f|hi&0x0f0f0f0f<<4)
		}
		m.putScale(data, b, lane, scale[b])
		m.putScale(data, b, lanes+lane, min[b])
	}
}

// SetRowQ8 packs one row of a Q8 or Q8S matrix: K codes and K/32 scales, which
// Q8 rounds to binary16. Rows may be set concurrently.
func (m *Matrix) SetRowQ8(row int, codes []int8, scale []float32) {
	if m.Format != Q8 && m.Format != Q8S {
		panic("BUG: 8-bit row for a matrix of format " + m.Format.String())
	}
	data, lane := m.row(row)
	codes, scale = codes[:m.K], scale[:m.K/Block]
	for b := range scale {
		m.putCodes8(data, b, lane, (*[Block]int8)(codes[b*Block:]))
		m.putScale(data, b, lane, scale[b])
	}
}

// putCodes8 writes the 32 codes of one row's block.
func (m *Matrix) putCodes8(data []byte, b, lane int, c *[Block]int8) {
	to := data[b*512 : b*512+512 : b*512+512]
	for j := 0; j < 8; j++ {
		u := uint32(uint8(c[4*j])) | uint32(uint8(c[4*j+1]))<<8 | uint32(uint8(c[4*j+2]))<<16 | uint32(uint8(c[4*j+3]))<<24
		binary.LittleEndian.PutUint32(to[64*j+4*lane:], u^0x80808080)
	}
}

// SetRowF32 packs one row of K weights: F32, BF16 and F16 convert (rounding to
// nearest even), Q8 and Q8S quantize each block of 32 to its largest magnitude
// over 127. The 4-bit formats have no such packing. Rows may be set
// concurrently.
func (m *Matrix) SetRowF32(row int, w []float32) {
	data, lane := m.row(row)
	w = w[:m.K]
	switch m.Format {
	case F32:
		for k, v := range w {
			binary.LittleEndian.PutUint32(data[k*64+4*lane:], math.Float32bits(v))
		}
	case BF16:
		for k, v := range w {
			binary.LittleEndian.PutUint16(data[k*32+2*lane:], floatToBfloat(v))
		}
	case F16:
		for k, v := range w {
			binary.LittleEndian.PutUint16(data[k*32+2*lane:], floatToHalf(v))
		}
	case Q8, Q8S:
		for b := 0; b < m.K/Block; b++ {
			m.quantizeBlock(data, b, lane, w[b*Block:b*Block+Block])
		}
	default:
		panic("BUG: float row for a matrix of format " + m.Format.String())
	}
}

// quantizeBlock quantizes 32 weights against the scale as it is stored.
func (m *Matrix) quantizeBlock(data []byte, b, lane int, w []float32) {
	var amax float32
	for _, v := range w {
		if a := float32(math.Abs(float64(v))); a > amax {
			amax = a
		}
	}
	m.putScale(data, b, lane, amax/127)
	d := m.scale(data, b, lane)
	var codes [Block]int8
	for i, v := range w {
		if d == 0 {
			break
		}
		c := math.RoundToEven(float64(v) / float64(d))
		codes[i] = int8(max(-127, min(127, c)))
	}
	m.putCodes8(data, b, lane, &codes)
}

// halfScales reports whether scales are binary16.
func (m *Matrix) halfScales() bool { return m.Format == Q4 || m.Format == Q8 }

// putScale writes entry i (scales first, then minima) of block b.
func (m *Matrix) putScale(data []byte, b, i int, v float32) {
	at := data[m.scaleOffset+b*formats[m.Format].scaleBytes:]
	if m.halfScales() {
		binary.LittleEndian.PutUint16(at[2*i:], floatToHalf(v))
	} else {
		binary.LittleEndian.PutUint32(at[4*i:], math.Float32bits(v))
	}
}

// scale reads entry i (scales first, then minima) of block b.
func (m *Matrix) scale(data []byte, b, i int) float32 {
	at := data[m.scaleOffset+b*formats[m.Format].scaleBytes:]
	if m.halfScales() {
		return halfToFloat(binary.LittleEndian.Uint16(at[2*i:]))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(at[4*i:]))
}

// Row writes the K weights of a row, dequantized, to dst: fma(code, scale,
// minimum) for the 4-bit formats, code·scale for the 8-bit ones.
func (m *Matrix) Row(dst []float32, row int) {
	data, lane := m.row(row)
	dst = dst[:m.K]
	switch m.Format {
	case F32:
		for k := range dst {
			dst[k] = math.Float32frombits(binary.LittleEndian.Uint32(data[k*64+4*lane:]))
		}
	case BF16:
		for k := range dst {
			dst[k] = bfloatToFloat(binary.LittleEndian.Uint16(data[k*32+2*lane:]))
		}
	case F16:
		for k := range dst {
			dst[k] = halfToFloat(binary.LittleEndian.Uint16(data[k*32+2*lane:]))
		}
	default:
		for b := 0; b < m.K/Block; b++ {
			m.rowBlock((*[Block]float32)(dst[b*Block:]), data, b, lane)
		}
	}
}

// rowBlock dequantizes one block of one row.
func (m *Matrix) rowBlock(dst *[Block]float32, data []byte, b, lane int) {
	d := m.scale(data, b, lane)
	if m.Format == Q8 || m.Format == Q8S {
		codes := data[b*512 : b*512+512]
		for i := range dst {
			dst[i] = float32(int(codes[i/4*64+4*lane+i%4])-128) * d
		}
		return
	}
	low := m.scale(data, b, lanes+lane)
	codes := data[b*256 : b*256+256]
	for i := 0; i < 16; i++ {
		c := codes[i/4*64+4*lane+i%4]
		dst[i] = fma32(float32(c&15), d, low)
		dst[16+i] = fma32(float32(c>>4), d, low)
	}
}
