package tier

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/dynamo-go/dynamo"
)

// Host is a store in this process's memory: one arena outside the garbage-collected
// heap, whose pages are taken as they are first written.
type Host struct {
	arena []byte
	frame int
	close func() error
}

var (
	_ Store  = (*Host)(nil)
	_ Memory = (*Host)(nil)
	_ Parts  = (*Host)(nil)
)

// NewHost reserves a store of so many frames of so many bytes each. Huge asks for
// large pages, which the kernel gives if it has them.
func NewHost(slots, frameBytes int, huge bool) (*Host, error) {
	arena, free, err := reserve(int64(slots)*int64(frameBytes), huge)
	if err != nil {
		return nil, &dynamo.Error{
			Kind: dynamo.KindExhausted, Err: err,
			Message: fmt.Sprintf("the host tier of %d bytes does not fit into this machine's memory; choose a smaller one", int64(slots)*int64(frameBytes)),
		}
	}
	return &Host{arena: arena, frame: frameBytes, close: free}, nil
}

// Frame implements Memory.
func (h *Host) Frame(slot int32) []byte {
	at := int(slot) * h.frame
	return h.arena[at : at+h.frame : at+h.frame]
}

// Put implements Store.
func (h *Host) Put(_ context.Context, r Ref, frame []byte) error {
	if own := h.Frame(r.Slot); unsafe.SliceData(own) != unsafe.SliceData(frame) {
		copy(own, frame)
	}
	return nil
}

// Get implements Store.
func (h *Host) Get(ctx context.Context, r Ref, frame []byte) error {
	return h.GetPart(ctx, r, frame, 0, len(frame))
}

// GetPart implements Parts.
func (h *Host) GetPart(_ context.Context, r Ref, frame []byte, from, to int) error {
	if own := h.Frame(r.Slot); unsafe.SliceData(own) != unsafe.SliceData(frame) {
		copy(frame[from:to], own[from:])
	}
	return nil
}

// Delete implements Store.
func (h *Host) Delete(context.Context, Ref) error { return nil }

// List implements Store: memory holds nothing from before.
func (h *Host) List(context.Context, func(Ref) bool) error { return nil }

// Close implements Store.
func (h *Host) Close() error { return h.close() }
