//go:build !amd64

package copysum

// level is an instruction level; there is one.
type level uint8

const levelPortable, best level = 0, 0

func levels() []level { return []level{levelPortable} }

func (level) blocks(*state, []byte, []byte, int, *[stripeBytes]byte) {}
func (level) stripes(*state, []byte, int)                            {}
func (level) last(*state, *[stripeBytes]byte)                        {}
