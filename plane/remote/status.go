package remote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// The methods of a worker.
const (
	methodGenerate = "generate"
	methodLend     = "lend" // generate, for requests with Lend
	methodStatus   = "status"
	methodArtifact = "artifact"
	methodDrain    = "drain"
	methodKV       = "kv"
)

// Status is what a worker says of itself. It travels as JSON; fields that a
// reader does not know are passed over.
type Status struct {
	// State is "starting", "ready", "draining" or "stopped".
	State  string `json:"state"`
	Model  string `json:"model"`
	Worker string `json:"worker"`
	Epoch  uint64 `json:"epoch"`
	// Requests counts those in progress, which may be fewer than the engine's
	// Load says when others use it too.
	Requests      int     `json:"requests"`
	UptimeSeconds float64 `json:"uptime_seconds"`
	Registered    bool    `json:"registered"` // the store has the worker
	// Fault is why the engine lost the last request, in its own words: it is gone, say.
	// Empty if it served it.
	Fault   string      `json:"fault,omitzero"`
	Version string      `json:"version,omitzero"`
	Load    engine.Load `json:"load"`
}

// FetchStatus asks a worker for its status. ctx should have a deadline.
func FetchStatus(ctx context.Context, p *rpc.Peer) (Status, error) {
	b, err := ask(ctx, p, methodStatus, nil, maxStatusBytes)
	if err != nil {
		return Status{}, fmt.Errorf("ask for the status: %w", err)
	}
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return Status{}, &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the worker's status cannot be read; do both sides run the same version?", Err: err}
	}
	return s, nil
}

// FetchArtifact gets the file whose SHA-256 is digest, in hexadecimal, from a
// worker. One that is longer than max bytes, or is not what was asked for, is
// KindCorrupt. ctx should have a deadline.
func FetchArtifact(ctx context.Context, p *rpc.Peer, digest string, max int64) ([]byte, error) {
	b, err := ask(ctx, p, methodArtifact, []byte(digest), max)
	if err != nil {
		return nil, fmt.Errorf("fetch the file %.12s…: %w", digest, err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); !strings.EqualFold(got, digest) {
		return nil, corrupt("the worker sent a file with digest %.12s…, asked for was %.12s…; its files have changed since it started: restart it", got, digest)
	}
	return b, nil
}

// Drain asks a worker to leave, and returns when it has begun to.
func Drain(ctx context.Context, p *rpc.Peer) error {
	if _, err := ask(ctx, p, methodDrain, nil, 0); err != nil {
		return fmt.Errorf("ask the worker to drain: %w", err)
	}
	return nil
}

// AskKV asks a worker something about its KV tiers, both sides in the JSON of package
// tier. ctx should have a deadline.
func AskKV(ctx context.Context, p *rpc.Peer, command []byte) ([]byte, error) {
	return ask(ctx, p, methodKV, command, maxKVBytes)
}

// ask opens a stream and reads it to its end, max bytes at most.
func ask(ctx context.Context, p *rpc.Peer, method string, request []byte, max int64) ([]byte, error) {
	c := rpc.Call{Method: method, Request: request}
	c.Deadline, _ = ctx.Deadline()
	s, err := p.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	defer s.Cancel(nil) // nothing to a stream that has ended
	var all []byte
	for {
		b, err := s.Recv()
		switch {
		case err == io.EOF: // itself, as above in the answer to a request
			return all, nil
		case err != nil:
			return nil, err
		case int64(len(all)+len(b)) > max:
			return nil, corrupt("the worker sent more than %d bytes", max)
		}
		all = append(all, b...)
	}
}
