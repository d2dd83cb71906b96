package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// call is a request, to be sent until it is served.
type call struct {
	op  string // for the metrics
	key string // with the prefix
	// moves is the number of bytes that come or go, for the time it may take.
	moves int
	// send sends it once.
	send func(ctx context.Context) error
}

// do sends a request, again if need be, unless the store is left alone.
func (b *Bucket) do(ctx context.Context, c *call) error {
	ok, trial, until := b.breaker.enter(time.Now())
	if !ok {
		b.config.Metrics.request(c.op, "spared")
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: CodeResting,
			Message: fmt.Sprintf("the object store at %s failed and is left alone; it is asked again in %v", b.config.endpoint(), max(time.Until(until), 0).Round(time.Millisecond))}
	}
	began := time.Now()
	asked, err := b.attempts(ctx, c)
	v, err := b.classify(ctx, err, time.Since(began))
	start, over := b.breaker.leave(v, trial, asked, time.Now())
	b.config.Metrics.rest(start, over)
	switch {
	case start:
		b.log.Warn("the object store goes on failing; it is left alone for a while, and KV that is there is computed", obs.KeyAddress, b.config.endpoint(), "bucket", b.config.Bucket, obs.KeyError, err)
	case over:
		b.log.Info("the object store is back", obs.KeyAddress, b.config.endpoint(), "bucket", b.config.Bucket)
	}
	return err
}

// attempts sends a request until it is served, refused, or has failed often enough. A
// store that asks to be left alone for longer than any pause is not asked again: asked is
// for how long.
func (b *Bucket) attempts(ctx context.Context, c *call) (asked time.Duration, _ error) {
	for n := 1; ; n++ {
		wait, err := b.attempt(ctx, c)
		a := said(err)
		var e *dynamo.Error
		outcome, more := "failed", true
		switch {
		case err == nil:
			b.config.Metrics.request(c.op, "served")
			return 0, nil
		case ctx.Err() != nil:
			outcome, more = "abandoned", false
		case errors.As(err, &e):
			outcome, more = "served", false
		case a != nil && a.StatusCode == http.StatusNotFound:
			outcome, more = "missing", false
		case a != nil && throttled(a):
			if outcome = "throttled"; wait > pauseMost {
				asked, more = min(wait, breakerMost), false
			}
		case a != nil && !again(a):
			outcome, more = "refused", false
		}
		b.config.Metrics.request(c.op, outcome)
		if !more || n == b.config.Attempts {
			return asked, err
		}
		timer := time.NewTimer(max(b.pause(c.key, n), wait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, err
		}
	}
}

// pause is the time after attempt n: it doubles, and half of it is scattered by the
// object's name and by the instance, so that those who failed together do not come
// back together.
func (b *Bucket) pause(key string, n int) time.Duration {
	most := min(pauseFirst<<(n-1), pauseMost)
	spread := xxh3.HashStringSeed(key, b.seed+uint64(n)) >> 11
	return most/2 + time.Duration(float64(most/2)*float64(spread)/(1<<53))
}

// attempt sends a request once. wait is for how long the store asks to be left alone.
func (b *Bucket) attempt(ctx context.Context, c *call) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, waitKey{}, &wait), attemptTime+time.Duration(c.moves)*time.Second/slowestBytes)
	defer cancel()
	err = c.send(ctx)
	return wait, err
}

// waitKey is where an attempt learns of a Retry-After: the client does not tell.
type waitKey struct{}

// waits is a transport that notes what answers say of it.
type waits struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w waits) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.RoundTripper.RoundTrip(r)
	if to, ok := r.Context().Value(waitKey{}).(*time.Duration); ok && err == nil {
		*to = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return resp, err
}

// retryAfter reads a Retry-After: seconds, or a date. What is neither is 0.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// hash is the hash of a body, by which it is signed; nothing where TLS keeps it.
func (b *Bucket) hash(body []byte) string {
	if b.secure {
		return ""
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// hold gives a body for one attempt.
func hold(body []byte) *heldBody {
	h := &heldBody{}
	h.mu.rest = body
	return h
}

// heldBody is the body of a request. After Close the bytes are not touched any more,
// whoever still holds it: a transport may go on reading after it has answered.
type heldBody struct {
	mu struct {
		sync.Mutex
		rest []byte
		over bool
	}
}

// Read implements io.Reader.
func (h *heldBody) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.mu.over:
		return 0, http.ErrBodyReadAfterClose
	case len(h.mu.rest) == 0:
		return 0, io.EOF
	}
	n := copy(p, h.mu.rest)
	h.mu.rest = h.mu.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (h *heldBody) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.rest, h.mu.over = nil, true
	return nil
}
