package kvbm

// chunk is the number of elements that a list grows by: small beside a pool, and of a
// size that the allocator has for blocks and entries alike.
const chunk = 512

// list is a slice that grows without being copied, and that has no more memory than it
// needs. Elements stay where they are.
type list[T any] struct {
	chunks []*[chunk]T
	n      int32
}

// at returns element i.
func (l *list[T]) at(i int32) *T { return &l.chunks[uint32(i)/chunk][uint32(i)%chunk] }

// get is at for any i; nil where there is no memory. An element that was not added is zero.
func (l *list[T]) get(i int32) *T {
	if c := int(uint32(i) / chunk); c < len(l.chunks) {
		return &l.chunks[c][uint32(i)%chunk]
	}
	return nil
}

// add appends a zero element and returns its index.
func (l *list[T]) add() int32 {
	if int(l.n) == chunk*len(l.chunks) {
		l.chunks = append(l.chunks, new([chunk]T))
	}
	l.n++
	return l.n - 1
}
