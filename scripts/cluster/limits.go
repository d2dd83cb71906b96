package main

import "time"

// The limits of a run. Whatever takes longer has failed.
const (
	// startTimeout bounds how long a process takes to be ready, a native worker's
	// loading included.
	startTimeout = 40 * time.Second
	// findTimeout bounds how long both frontends take to find workers that are
	// ready, or to find the store again.
	findTimeout = 20 * time.Second
	// stopTimeout bounds how long a process takes to end when it is asked to.
	stopTimeout = 15 * time.Second
	// commandTimeout bounds 'dynamo status' and the like.
	commandTimeout = 20 * time.Second
	// requestTimeout bounds one request, whatever happens to its worker.
	requestTimeout = 30 * time.Second
	// nativeTimeout is the same where a model is computed.
	nativeTimeout = 90 * time.Second
	// pollEvery is the time between two looks at something that will change.
	pollEvery = 20 * time.Millisecond
	// deadPeer is how long a silent worker may go unnoticed.
	deadPeer = 3 * time.Second
	// firstRequest is how long a worker that is ready may take to answer its first
	// request. Where nothing else runs it is a tenth of that; the figure is printed.
	firstRequest = 2 * time.Second
	// shortOutage and longOutage are how long a store is away.
	shortOutage, longOutage = 15 * time.Second, 60 * time.Second
	// maxConcurrent bounds -c.
	maxConcurrent = 1000
	// maxEventBytes bounds one event of a stream, maxBodyBytes any other body, and
	// maxLine a line of a process's output.
	maxEventBytes = 1 << 20
	maxBodyBytes  = 8 << 20
	maxLine       = 1 << 20
	// maxWhy bounds what is printed of why a check failed, in bytes.
	maxWhy = 1500
	// maxExamples is how many failures of a check are printed in full.
	maxExamples = 3
)

// nativeStreams is the number of concurrent streams where a model is computed.
const nativeStreams = 6
