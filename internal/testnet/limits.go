package testnet

import "time"

// The limits of the network and what happens at each of them.
const (
	// BufferBytes is what one direction of a connection holds before its writer
	// blocks.
	BufferBytes = 64 << 10
	// backlog is how many connections wait for Accept; a dial beyond it waits.
	backlog = 128
	// dialTimeout ends a dial that nobody answers, as the retries of a SYN do.
	dialTimeout = 127 * time.Second

	firstListenPort = 10_000 // the first port that Listen on port 0 takes
	firstDialPort   = 32_768 // the first port a dialled connection comes from
	lastPort        = 65_535 // when a host has used them up, Listen fails and Dial starts again
)
