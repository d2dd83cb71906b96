package main

import "time"

const (
	// startTimeout bounds the wait for a process to serve, and stopTimeout that for all
	// to end; then they are killed.
	startTimeout, stopTimeout = 2 * time.Minute, 10 * time.Second
	// lookEvery is the time between two looks at a state.
	lookEvery = 20 * time.Millisecond
	// tries is how often a client sends a request, at another frontend each time.
	tries = 4
	// hitMargin is how far the hit rate of many frontends may lie below that of one,
	// and returnMax how long one that returns may take to know all caches.
	hitMargin = 0.01
	returnMax = 3 * time.Second
	// A burst has burstQuestions about a document of burstBlocks blocks, within burstWithin.
	burstQuestions, burstBlocks = 6, 60
	burstWithin                 = 200 * time.Millisecond
	// fillTokens is the length of a prompt that fills a cache, and fillers how many are
	// sent at once.
	fillTokens, fillers = 8192, 8
	// killRequests is how many requests are under way when a frontend is killed.
	killRequests = 32
)
