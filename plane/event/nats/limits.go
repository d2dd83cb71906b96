package nats

import "time"

const (
	// batchBytes bounds a batch, below the server's max_payload if that is less.
	batchBytes = 64 << 10
	// pendingMessages and pendingBytes bound what waits for one subscription; more
	// is dropped, and asked for again.
	pendingMessages = 4096
	pendingBytes    = 8 << 20
	// pendingQuestions bounds the questions that wait for one publisher; more are
	// dropped, and asked again.
	pendingQuestions = 1024
	// maxAsks bounds how often in a row a subscriber asks in vain; then the
	// subscription ends with an error.
	maxAsks = 3
	// keepSnapshot is how long a snapshot is kept for the next question about it.
	keepSnapshot = 5 * time.Second
	// writeMax bounds one write to the server: a connection that takes longer is
	// given up, and made anew.
	writeMax = 5 * time.Second
	// connectMax bounds one attempt to connect; the pause between two grows from
	// reconnectMin to reconnectMax.
	connectMax   = 2 * time.Second
	reconnectMin = 50 * time.Millisecond
	reconnectMax = time.Second
	// pingEvery is how often the server is asked whether it lives; it is given up
	// after pingsUnanswered.
	pingEvery       = 2 * time.Second
	pingsUnanswered = 2

	defaultHeartbeat = time.Second
	defaultSilence   = 3500 * time.Millisecond
	defaultAnswer    = time.Second
)
