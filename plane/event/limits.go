package event

import "time"

const (
	// MaxPayloadBytes bounds one event and one part of a snapshot. Publish drops
	// a larger event, so that subscribers see a gap and take a snapshot; a
	// snapshot with a larger part counts as none.
	MaxPayloadBytes = 16 << 20
	// MaxRingBytes bounds what PublisherConfig may ask for.
	MaxRingBytes = 1 << 30
	// MaxRingEvents bounds what PublisherConfig may ask for.
	MaxRingEvents = 1 << 24
	// MaxSnapshotParts bounds one snapshot.
	MaxSnapshotParts = 1 << 20
	// MaxTopicBytes bounds a topic's name.
	MaxTopicBytes = 64
	// MinBatchBytes is the least room Reader.Fill works with: a header and a
	// record with a byte of payload.
	MinBatchBytes = 128
	// BatchBytes is the size of a batch over rpc. Reading the ring holds the
	// publisher up for as long as it takes to copy that much.
	BatchBytes = 32 << 10

	// kvPayloadBytes is what a payload of KV events aims at, and kvPieceBlocks the
	// most blocks of one event in it: it exceeds its aim by no more than those.
	kvPayloadBytes = 32 << 10
	kvPieceBlocks  = 1024

	// digestEvery is how long after a change the digests of what KV caches hold are
	// told, and digestIdle how long after the last ones without one.
	digestEvery, digestIdle = 5 * time.Second, time.Minute
	// MaxSketchCells bounds a sketch that is asked for, and maxAskedBlocks the blocks;
	// more is invalid.
	MaxSketchCells = 3 << 14
	maxAskedBlocks = 1 << 16
	// maxExpected bounds the blocks of one prompt that are told of before they are
	// there; the rest comes as a surprise.
	maxExpected = 4096

	// MaxSubscribers bounds the subscriptions that one RPC bus serves, each with a
	// goroutine and at most a batch; more are refused.
	MaxSubscribers = 1024

	// maxAsksInVain bounds how often in a row a subscriber asks for what is missing
	// without getting it; then the subscription ends with an error.
	maxAsksInVain = 3
	// retryMin and retryMax bound the pause between the subscriptions of a follower.
	retryMin = 20 * time.Millisecond
	retryMax = time.Second

	defaultRingBytes  = 4 << 20
	defaultRingEvents = 64 << 10
	// The ring begins small: a load reporter never needs more.
	firstRingBytes  = 4 << 10
	firstRingEvents = 64

	// loadRingEvents is the ring of a load reporter: the newest report is all
	// that counts.
	loadRingEvents = 64
	// defaultLoadEvery is the least time between two reports, and
	// defaultLoadHeartbeat the longest.
	defaultLoadEvery     = 50 * time.Millisecond
	defaultLoadHeartbeat = time.Second
)
