package transfer

import "testing"

// TestFrames takes the frames of lists until their end: they carry every segment once, in
// order, no more than a frame may, and end with small ones, so that no connection is idle
// while another has much left.
func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name              string
		segments          int
		bytes             int64
		connections, most int // most: frames
	}{
		{"one", 1, 8, 2, 1},
		{"blocks", 256, 64 << 10, 2, 34},
		{"blocks, one connection", 256, 64 << 10, 1, 32},
		{"few blocks", 16, 64 << 10, 2, 5},
		{"large", 9, segmentBytes, 2, 9},
		{"small", 5000, 16, 4, 5},
	} {
		l := &List{}
		for i := range c.segments {
			l.segments = append(l.segments, segment{first: i, length: c.bytes})
		}
		l.share()
		s := &striping{job: &job{list: l}, connections: c.connections}
		next, frames, last := 0, 0, int64(0)
		for frame := s.take(); len(frame) > 0; frame = s.take() {
			last = 0
			for _, segment := range frame {
				if segment.first != next {
					t.Fatalf("%s: segment %d comes where %d is next", c.name, segment.first, next)
				}
				next++
				last += segment.length
			}
			if len(frame) > frameSegments || last > frameBytes && len(frame) > 1 {
				t.Errorf("%s: a frame has %d segments of %d bytes together", c.name, len(frame), last)
			}
			frames++
		}
		if next != c.segments || frames > c.most {
			t.Errorf("%s: %d segments in %d frames, want %d in at most %d", c.name, next, frames, c.segments, c.most)
		}
		if c.connections > 1 && c.segments > 1 && last > max(chunkBytes, c.bytes) {
			t.Errorf("%s: the last frame has %d bytes, want a chunk", c.name, last)
		}
	}
}
