package placement

import "time"

// The limits of this package, and what happens at each.
const (
	// ReportFresh is how long a worker's report counts; after it the worker is
	// judged by what the router itself has booked.
	ReportFresh = 5 * time.Second
	// assumedCapacity stands for the MaxRunning of a worker that names none.
	assumedCapacity = 64
	// assumedStepTokens stands for the StepTokens of a worker that names none.
	assumedStepTokens = 8192
	// sessionSlack is by what factor of its share a worker may be loaded before its
	// sessions go elsewhere.
	sessionSlack = 1.25
	// assumedOutput stands for the Expected of a request that has none.
	assumedOutput = 128

	// recordEntries is how many candidates a record holds; the others are bounded.
	recordEntries = 8

	// quantumMS is what a tenant may use in its turn, in milliseconds; a request that
	// costs more waits for as many turns as it takes.
	quantumMS = 50
	// leastCostMS and mostCostMS bound what a request is charged.
	leastCostMS, mostCostMS = 1, 1e6
	// drainHalfLife is in which time the queue forgets half of how fast it drained, and
	// maxRetryAfter the longest time that it asks a client to stay away.
	drainHalfLife = 10 * time.Second
	maxRetryAfter = time.Minute

	// sameStep is by which factor the time since the last first token is shorter than
	// the one before, where both were computed in one step.
	sameStep = 20
	// enoughSamples is how many requests a worker has to have served before its own
	// model is believed.
	enoughSamples = 24
	// enoughPrompts is how many of them have to be of prompts, for that what it takes to
	// compute those is believed.
	enoughPrompts = 8

	// leastIdleSeconds is the least that a first token is taken to take on an idle machine.
	leastIdleSeconds = 1e-4
	// maxRequests, maxTokens and maxBlocks bound what a report, a request or an
	// overlap may count; more is taken for that.
	maxRequests = 1 << 20
	maxTokens   = 1 << 30
	maxBlocks   = 1 << 26
	// maxWeight bounds weights; more is refused.
	maxWeight = 1e6
	// maxCost is what a cost is that is larger, or no number.
	maxCost = 1e30
	// minSplitTokens is how many tokens of a prompt there must be to compute for that to be
	// worth doing elsewhere.
	minSplitTokens = 64
	// clearly is the part of the cost of one place that two have to cost less than, where
	// how fast they are is not known.
	clearly = 0.9
	// maxPairs is how many pairs of workers are remembered for how long handovers between
	// them take; of others, what all have seen counts.
	maxPairs = 4096
	// minFetchTokens is how many tokens' KV there must be at another worker for that to be
	// brought, and linkMemory how long what that took lately counts.
	minFetchTokens = 64
	linkMemory     = 30 * time.Second
)
