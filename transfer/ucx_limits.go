//go:build dl && linux && (amd64 || arm64)

package transfer

import "time"

// Limits of the path ucx.
const (
	// ucxLarge is the least that libucp moves from memory to memory, in messages of
	// ucxPiece, which is what is received and summed at a time; less is copied into
	// messages. ucxWindow bounds the bytes of those on the way to who does not read;
	// who sends more waits.
	ucxLarge  = 16 << 10
	ucxPiece  = pieceBytes
	ucxWindow = 256 << 10
	// ucxProgress bounds the rounds of libucp before its worker looks at what came of
	// them, and ucxSpin those in which nothing happens before it sleeps.
	ucxProgress = 64
	ucxSpin     = 8
	// ucxLinger is how long a connection of the path ucx that is closed waits for what
	// was sent before.
	ucxLinger = 50 * time.Millisecond
	// ucxTick is how often a worker of libucp looks while something is on the way.
	ucxTick = 2 * time.Millisecond
)
