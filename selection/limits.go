package selection

import "time"

// The limits of this package, and what happens at each.
const (
	// maxBodyBytes bounds a body; more is refused with 413. A prompt of a million ids
	// takes some 7 MiB.
	maxBodyBytes = 16 << 20
	// firstBodyBytes is how much of a body's length is believed before it is there.
	firstBodyBytes = 64 << 10
	// maxPrompt bounds a prompt in tokens, and maxText one in bytes of text; more is
	// refused with 400.
	maxPrompt = 4 << 20
	maxText   = 8 << 20
	// maxBlockSize bounds block_size.
	maxBlockSize = 1 << 16
	// maxWorkers bounds a list of workers, maxLabels one of labels.
	maxWorkers, maxLabels = 1024, 64
	// maxName bounds the length of an id or a name in bytes, maxLabel that of a label.
	maxName, maxLabel = 128, 256
	// maxOutput bounds the length of an answer in tokens, and is the most that one call
	// lets it grow by.
	maxOutput = 16 << 20
	// assumedOutput is how long an answer may become that is not said to be bounded.
	assumedOutput = 2048
	// maxRank bounds a data-parallel rank.
	maxRank = 1<<16 - 1
	// maxWeight bounds the numbers of router_config_override.
	maxWeight = 1e6
	// keptEnds is how many reservations that have ended are remembered, so that a
	// second release is told from one of a reservation that never was.
	keptEnds = 1 << 14
	// mostReservations bounds Config.Reservations, and maxLease Config.Lease and what a
	// request asks for.
	mostReservations = 1 << 20
	maxLease         = 24 * time.Hour
	// headerTimeout bounds the reading of a header, bodyTimeout that of a body,
	// writeTimeout the writing of an answer, and idleTimeout the wait for the next
	// request of a connection.
	headerTimeout, bodyTimeout = 10 * time.Second, time.Minute
	writeTimeout, idleTimeout  = time.Minute, 2 * time.Minute
	maxHeaderBytes             = 64 << 10
	// maxHandlers is how many requests are handled at once, those that wait for a worker
	// included; one more is refused with 429 before its body is read.
	maxHandlers = 4096
	// maxAnswerBytes bounds an answer that a client reads over HTTP; a longer one is an
	// error. Over rpc it is one message.
	maxAnswerBytes = 64 << 20
	// maxAdded bounds the workers that clients have added, together; one more is
	// refused with 429. maxURL bounds the address of one, maxRanks its data-parallel
	// ranks, maxContext a context length, and maxPlaces each of the numbers that say how
	// much one takes.
	maxAdded, maxURL, maxRanks = 1 << 14, 2048, 256
	maxContext, maxPlaces      = 1<<31 - 1, 1 << 30
	// retryAfter is what a client is told to wait where nobody has said for how long.
	retryAfter = time.Second
	// shown bounds what an error message quotes.
	shown = 80
)
