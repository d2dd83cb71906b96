package main

import "time"

const (
	// startTimeout bounds the wait for a process to serve, and stopTimeout that for all
	// to end; then they are killed.
	startTimeout, stopTimeout = 2 * time.Minute, 10 * time.Second
	// lookEvery is the time between two looks at a state.
	lookEvery = 20 * time.Millisecond
	// settleEvery is that where all frontends are asked.
	settleEvery = 500 * time.Millisecond
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
	// loseEvents is the share of the workers' events that is lost unseen in the part
	// that measures repairs. Digests of what changed are told every 5 s, so after
	// digestWithin without any change each router has compared the last ones.
	loseEvents   = 0.03
	digestWithin = 12 * time.Second
	// chatsAtOnce is how many requests a closed loop keeps open.
	chatsAtOnce = 8
	// The part that measures repairs sends repairRequests prompts of repairTokens.
	repairRequests, repairTokens = 480, 512
	// shortChats is how many requests the short form compares, and shortAnswer how long
	// their answers are: their prompts are what counts.
	shortChats, shortAnswer = 2500, 4
	// shortBlocks is how many blocks a worker's cache has there, and shortRunning how many
	// requests a worker computes at once.
	shortBlocks, shortRunning = 1500, 4
	// killRequests is how many requests are under way when a frontend is killed.
	killRequests = 32
)
