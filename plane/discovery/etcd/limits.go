package etcd

import "time"

const (
	// openMax bounds how long Open and Register try to reach etcd before they
	// fail. What is registered or watched is tried for ever.
	openMax = 5 * time.Second
	// requestMax bounds one request; then it counts as failed and is repeated
	// with the next endpoint, if there are several.
	requestMax = 1500 * time.Millisecond
	// snapshotMax bounds the read of all entries under a path.
	snapshotMax = 3 * time.Second
	// A watch that has received nothing for probeEvery asks the server for a sign
	// of life, and takes it for gone when none comes within probeMax. Their sum is
	// the longest that a stopped etcd stays unnoticed.
	probeEvery = 1 * time.Second
	probeMax   = 1500 * time.Millisecond
	// unaryRetries is how often one request is repeated within requestMax.
	unaryRetries = 3
	// retryMin and retryMax bound the back-off between attempts.
	retryMin = 50 * time.Millisecond
	retryMax = 1 * time.Second
	// closeMax bounds how long a Close tries to take the entry back; after that
	// the lease does it.
	closeMax = 1 * time.Second
	// pollEvery is the time between looks at a predecessor's lease, and
	// expiryMax how long etcd may take to delete what has expired.
	pollEvery = 100 * time.Millisecond
	expiryMax = 1500 * time.Millisecond
	// maxInstances bounds the view of a watch; entries beyond it are passed over
	// and reported. How large one may be is discovery.MaxInstanceBytes.
	maxInstances = 1 << 16
	// maxResponseBytes bounds one message of etcd; a larger one fails the watch,
	// which goes on with a snapshot.
	maxResponseBytes = 256 << 20
	// maxShownBytes is how much of a key an error shows.
	maxShownBytes = 256
	// watchBuffer is how many responses wait for a slow consumer; then etcd waits.
	watchBuffer = 16
)
