package tier

import "unsafe"

// Buffer returns a buffer whose address is a multiple of 4096, as direct I/O wants it:
// what Stores are given.
func Buffer(n int) []byte {
	b := make([]byte, n+frameAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (frameAlign - 1))
	return b[skip : skip+n : skip+n]
}
