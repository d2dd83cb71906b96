package vllm

import (
	"time"

	"github.com/dynamo-go/dynamo/kvbm"
)

// The limits of this package, and what happens at each.
const (
	// maxBlockSize bounds the KV blocks of a server: larger ones are refused.
	maxBlockSize = kvbm.MaxBlockSize
	// maxLine bounds a line of a supervised server's output; the rest is dropped.
	maxLine = 512
	// tailLines is how many of them are kept to explain a crash; older ones go.
	tailLines = 400
	// shownLines is how many of them an error shows.
	shownLines = 6

	// maxFrame bounds one event of an answer's stream: a longer one is corrupt.
	maxFrame = 1 << 20
	// readBuffer is a stream's; frames beyond it are put together elsewhere.
	readBuffer = 8 << 10
	// maxDrain and drainTimeout bound what is read behind the end of an answer; beyond
	// them the connection is given up.
	maxDrain, drainTimeout = 64, time.Second
	// defaultLease is how long a server keeps KV that nobody fetches, if it does not say;
	// older versions keep it for longer. Then it gives the blocks to others. Word of KV that
	// is older than half of that is not acted upon, and an answer with it that has not begun
	// after five sixths is given up: the server computes the prompt. maxLease bounds what is
	// believed, and handoverSkew is how far another machine's clock may be ahead.
	defaultLease, maxLease = 30 * time.Second, time.Hour
	handoverSkew           = 2 * time.Second

	// maxPage bounds a page that is no stream; a longer one is corrupt.
	maxPage = 4 << 20
	// maxFaultBytes bounds what is read of an error's page.
	maxFaultBytes = 64 << 10
	// maxExcerpt bounds what an error shows of bytes that make no sense.
	maxExcerpt = 120
	// maxModels and maxRanks bound what a server may list; more is corrupt.
	maxModels, maxRanks = 4096, 1024
	// maxStepTokens bounds what a server may claim to compute in a step; more is
	// unknown.
	maxStepTokens = 1 << 24
	// maxAdapters bounds the adapters of a card, and maxAdapterName the bytes of a
	// name; further and longer ones are left out, which a note says.
	maxAdapters, maxAdapterName = 1024, 256
	// lookPolls is after how many readings of the metrics the adapters are asked for
	// again.
	lookPolls = 10

	// askTimeout bounds each question of the discovery, pollTimeout a reading of the
	// metrics; what takes longer has failed.
	askTimeout, pollTimeout = 10 * time.Second, 2 * time.Second
	// freshPolls is how many readings may fail before what the last one said is
	// forgotten.
	freshPolls = 3
	// waitMin and waitMax bound the pause between two looks at a server that does not
	// answer yet; it doubles.
	waitMin, waitMax = 100 * time.Millisecond, 2 * time.Second
	// portTries is how often so many free ports in a row are looked for.
	portTries = 20
	// idleConnection is shorter than a vLLM server's own 5 s, so that no request goes
	// out on a connection that is just being closed.
	idleConnection = 4 * time.Second
	// maxIdle bounds the connections that are kept for later requests.
	maxIdle = 256
	// lastWords is how long a dead server's output is still read.
	lastWords = 2 * time.Second

	// defaultLogprobs is the most alternatives a server returns unless it is told
	// otherwise (--max-logprobs), and maxTopLogprobs what this package offers.
	defaultLogprobs, maxTopLogprobs = 20, 20
	// noLogprob is what a server sends for a logprob that it does not have.
	noLogprob = -9999
)
