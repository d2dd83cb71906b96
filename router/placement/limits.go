package placement

import "time"

// The limits of this package, and what happens at each.
const (
	// ReportFresh is how long a worker's report counts; after it the worker is
	// judged by what the router itself has booked.
	ReportFresh = 5 * time.Second
	// assumedCapacity stands for the MaxRunning of a worker that names none.
	assumedCapacity = 64
)
