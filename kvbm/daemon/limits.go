package daemon

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxBody bounds the body of a message; a longer one ends the connection.
	MaxBody = 1 << 20
	// MaxItems bounds the blocks of a request; more are invalid.
	MaxItems = 4096
	// MaxRequests is the number of requests of a connection that are in progress; further
	// ones are not read.
	MaxRequests = 64
	// MaxNameBytes and MaxContentBytes bound what hello says; more is invalid.
	MaxNameBytes    = 128
	MaxContentBytes = 768
	// maxMemories bounds the memories of a connection, maxFiles the files that have come
	// and are not used yet; more end the connection.
	maxMemories = 64
	maxFiles    = 4
	// maxClients bounds the connections; more are refused.
	maxClients = 4096
	// helloTime is how long a new connection may say nothing, writeTime how long one may
	// take no reply; then it ends.
	helloTime = 10 * time.Second
	writeTime = 10 * time.Second
	// maxConversions is the number of requests whose blocks are being converted, and
	// convertBytes the memory of each, or what one block needs; further ones wait.
	maxConversions = 4
	convertBytes   = 32 << 20
	// maxPlans is the number of conversions that a connection remembers; then it forgets
	// them all.
	maxPlans = 32
	// loadTime bounds a get; then it has brought nothing.
	loadTime = 30 * time.Second
	// dialTime bounds an attempt to reach the daemon. The attempts of a Store are
	// redialMin apart, after failures twice that and so on up to redialMax.
	dialTime             = time.Second
	redialMin, redialMax = 50 * time.Millisecond, 2 * time.Second
	// maxIdle is the number of connections that a Store keeps, and the most it uses at
	// once; further calls wait.
	maxIdle = 8
	// callTime bounds a call of a Store whose context has no end.
	callTime = 30 * time.Second
)
