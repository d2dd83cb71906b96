package bench

import "time"

// The limits of the package, and what happens at each.
const (
	// readBuffer is the read buffer of a connection, and with it the longest header
	// line; a longer one is a bad answer.
	readBuffer = 32 << 10
	// maxHeaderLines bounds an answer's headers; more is a bad answer.
	maxHeaderLines = 256
	// maxEventBytes bounds one event of a stream, and maxAnswerBytes an answer that
	// is not one; more is an error of class too_large.
	maxEventBytes  = 4 << 20
	maxAnswerBytes = 64 << 20
	// maxErrorBytes bounds what is kept of an error's text.
	maxErrorBytes = 300
	// maxTextBytes bounds the text of an answer that is kept for counting its
	// tokens; what is beyond counts as one token for each event.
	maxTextBytes = 4 << 20
	// maxDepth bounds the nesting of an event's JSON; deeper is a bad event.
	maxDepth = 64
	// maxGaps bounds the gaps that are held for one request; when they are full they
	// are counted, and a record lists only the first ones.
	maxGaps = 4096
	// maxConnections bounds connections and with them goroutines; an open loop that
	// needs more sends late and says so.
	maxConnections = 65536
	// maxSamples bounds the values from which summaries are exact; beyond it they
	// come from histograms, within 0.1 %.
	maxSamples = 1 << 20
	// maxSecondSamples bounds the values of one second from which the entries of the
	// series come; further ones of that second are left out of it.
	maxSecondSamples = 1 << 14
	// maxSeconds bounds the series; later seconds are left out.
	maxSeconds = 7 * 24 * 3600
	// maxRecordsWaiting bounds records that wait to be written; at the limit the
	// connections wait, which shows as lateness.
	maxRecordsWaiting = 4096
	// maxAhead bounds the requests of a trace that are held before they are due: the
	// reader stays at most so far ahead of the clock.
	maxAhead = 1 << 14
	// maxSessions bounds the sessions whose last end is remembered; at the limit
	// those that wait for nothing are forgotten, and their next requests come at
	// their own times.
	maxSessions = 1 << 18
	// maxPromptTokens bounds a prompt.
	maxPromptTokens = 1 << 24
	// maxErrorClasses bounds the classes of errors that are told apart; further ones
	// count as other.
	maxErrorClasses = 64
)

const (
	// dialTimeout bounds connecting, within the request's timeout.
	dialTimeout = 10 * time.Second
	// lead is how long before it is due a request is made and handed to its
	// connection.
	lead = 5 * time.Millisecond
	// lateMax is the lateness at the 99th percentile from which the client counts as
	// the bottleneck, and busyShare the share of its processors.
	lateMax   = 5 * time.Millisecond
	busyShare = 0.85
)
