package remote

import (
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// Config describes the client of one worker.
type Config struct {
	// Worker and Epoch name the worker in logs and spans. No default.
	Worker dynamo.WorkerID
	Epoch  uint64
	// OnLoad hears of the worker's load as answers bring it, from the goroutines
	// of requests, several at once. It must not block. Nil: not told.
	OnLoad func(engine.Load)
	// CancelWait is how long a request that was given up waits for the worker to
	// confirm that it has ended. Default 1 s.
	CancelWait time.Duration
	// Logger gets the requests at level debug; nil discards.
	Logger *slog.Logger
	// Tracer records a span for each request; nil records none.
	Tracer *obs.Tracer
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{CancelWait: time.Second} }
