package perfmodel

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
)

// array is a numeric array of a .npz file, in row order.
type array struct {
	shape []int
	data  []float64
}

// isZip says whether data begins like a .npz file.
func isZip(data []byte) bool { return bytes.HasPrefix(data, []byte("PK\x03\x04")) }

// readNPZ reads the numeric arrays of a .npz file: a zip archive whose members
// NAME.npy each hold
//
//	"\x93NUMPY", major, minor, the header's length (2 bytes, little-endian; 4 from
//	major 2 on), a header such as {'descr': '<f8', 'fortran_order': False, 'shape':
//	(3, 4), }, padding, the elements
//
// Elements may be floats of 4 or 8 bytes and integers of 1 to 8 bytes in either
// byte order. Members of other types are left out: profiles carry text too.
func readNPZ(data []byte) (map[string]array, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, invalid("npz", "%v; give it the profiler's .npz file", err)
	}
	if len(z.File) > maxArrays {
		return nil, invalid("npz", "has %d members, limit %d", len(z.File), maxArrays)
	}
	arrays := map[string]array{}
	elements := 0
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, invalid(name, "%v", err)
		}
		a, err := readNPY(name, r, MaxPoints-elements)
		r.Close() // of a reader over memory: nothing to lose
		if errors.Is(err, errNotNumeric) {
			continue
		}
		if err != nil {
			return nil, err
		}
		elements += len(a.data)
		arrays[name] = a
	}
	return arrays, nil
}

// errNotNumeric marks an array of text or objects.
var errNotNumeric = errors.New("not numeric")

func readNPY(name string, r io.Reader, limit int) (array, error) {
	header, err := readHeader(name, r)
	if err != nil {
		return array{}, err
	}
	descr, rest := quoted(header, "'descr':")
	size, of, ok := element(descr)
	if !ok {
		return array{}, errNotNumeric
	}
	if strings.Contains(rest, "'fortran_order': True") {
		return array{}, invalid(name, "is stored in Fortran order; save it in C order (numpy.ascontiguousarray)")
	}
	shape, count, ok := readShape(rest, limit)
	if !ok {
		return array{}, invalid(name, "has a header without a usable shape, or more than %d elements are in the file", MaxPoints)
	}
	raw := make([]byte, count*size)
	if _, err := io.ReadFull(r, raw); err != nil {
		return array{}, invalid(name, "ends before its %d elements: %v", count, err)
	}
	a := array{shape: shape, data: make([]float64, count)}
	for i := range a.data {
		if a.data[i] = of(raw[i*size:]); math.IsNaN(a.data[i]) || math.IsInf(a.data[i], 0) {
			return array{}, invalid(name, "element %d is %v; every element must be finite", i, a.data[i])
		}
	}
	return a, nil
}

func readHeader(name string, r io.Reader) (string, error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:10]); err != nil || string(head[:6]) != "\x93NUMPY" || head[6] < 1 || head[6] > 3 {
		return "", invalid(name, "is no .npy array of version 1, 2 or 3")
	}
	length := int(binary.LittleEndian.Uint16(head[8:]))
	if head[6] > 1 {
		if _, err := io.ReadFull(r, head[10:]); err != nil {
			return "", invalid(name, "ends in its header")
		}
		length = int(min(binary.LittleEndian.Uint32(head[8:]), maxHeader+1))
	}
	if length > maxHeader {
		return "", invalid(name, "has a header of more than %d bytes", maxHeader)
	}
	header := make([]byte, length)
	if _, err := io.ReadFull(r, header); err != nil {
		return "", invalid(name, "ends in its header")
	}
	return string(header), nil
}

// quoted returns the string after key in a header, and what follows it.
func quoted(header, key string) (value, rest string) {
	_, after, ok := strings.Cut(header, key)
	if !ok {
		return "", header
	}
	_, after, _ = strings.Cut(after, "'")
	value, after, _ = strings.Cut(after, "'")
	return value, after
}

// element returns the size of a type such as "<f8", and how it is read.
func element(descr string) (size int, of func([]byte) float64, ok bool) {
	if len(descr) != 3 || !strings.Contains("<>|=", descr[:1]) {
		return 0, nil, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if descr[0] == '>' {
		order = binary.BigEndian
	}
	switch descr[1:] {
	case "f8":
		return 8, func(b []byte) float64 { return math.Float64frombits(order.Uint64(b)) }, true
	case "f4":
		return 4, func(b []byte) float64 { return float64(math.Float32frombits(order.Uint32(b))) }, true
	case "i8":
		return 8, func(b []byte) float64 { return float64(int64(order.Uint64(b))) }, true
	case "u8":
		return 8, func(b []byte) float64 { return float64(order.Uint64(b)) }, true
	case "i4":
		return 4, func(b []byte) float64 { return float64(int32(order.Uint32(b))) }, true
	case "u4":
		return 4, func(b []byte) float64 { return float64(order.Uint32(b)) }, true
	case "i2":
		return 2, func(b []byte) float64 { return float64(int16(order.Uint16(b))) }, true
	case "u2":
		return 2, func(b []byte) float64 { return float64(order.Uint16(b)) }, true
	case "i1":
		return 1, func(b []byte) float64 { return float64(int8(b[0])) }, true
	case "u1":
		return 1, func(b []byte) float64 { return float64(b[0]) }, true
	}
	return 0, nil, false
}

// readShape reads the dimensions in a header; none is a single element.
func readShape(header string, limit int) (shape []int, count int, ok bool) {
	_, after, ok := strings.Cut(header, "'shape':")
	if !ok {
		return nil, 0, false
	}
	_, after, _ = strings.Cut(after, "(")
	inside, _, ok := strings.Cut(after, ")")
	if !ok {
		return nil, 0, false
	}
	count = 1
	for field := range strings.SplitSeq(inside, ",") {
		if field = strings.TrimSpace(field); field == "" {
			continue
		}
		n, err := strconv.Atoi(field)
		if err != nil || n < 0 || len(shape) == 4 || n > 0 && count > limit/n {
			return nil, 0, false
		}
		count *= n
		shape = append(shape, n)
	}
	return shape, count, count <= limit
}
