package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// client sends requests as a careful one does: what fails is sent again to another
// frontend.
type client struct {
	urls           []string
	prompt, answer int // tokens
	// distinct has prompts share nothing; otherwise they are few.
	distinct bool
}

// tally is how requests ended.
type tally struct {
	requests, again int
	lost            []error
}

// run sends n requests, some at once, and returns when all have ended.
func (k *client) run(ctx context.Context, n int) tally {
	sum := tally{requests: n}
	var next, again atomic.Int64
	var mu sync.Mutex
	var running sync.WaitGroup
	parallel := fillers
	if !k.distinct {
		parallel = n // all are under way at once
	}
	for range parallel {
		running.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				err := k.insist(ctx, i, &again)
				if err != nil {
					mu.Lock()
					sum.lost = append(sum.lost, err)
					mu.Unlock()
				}
			}
		})
	}
	running.Wait()
	sum.again = int(again.Load())
	return sum
}

// insist sends one request until it is answered.
func (k *client) insist(ctx context.Context, i int, again *atomic.Int64) error {
	var errs []error
	for try := range tries {
		if try > 0 {
			again.Add(1)
		}
		err := k.ask(ctx, k.urls[(i+try)%len(k.urls)], i)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("request %d: %w", i, errors.Join(errs...))
}

// ask sends one request and reads its answer to the end.
func (k *client) ask(ctx context.Context, url string, i int) error {
	body := []byte(`{"model":"mock","stream":true,"ignore_eos":true,"max_tokens":` + strconv.Itoa(k.answer) + `,"prompt":[`)
	seed := uint64(i)
	if !k.distinct {
		seed %= 4
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for j := range k.prompt {
		if j > 0 {
			body = append(body, ',')
		}
		body = strconv.AppendUint(body, 1000+rng.Uint64N(20000), 10)
	}
	body = append(body, ']', '}')
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK || !bytes.Contains(b, []byte("data: [DONE]")):
		return fmt.Errorf("status %d: %s", resp.StatusCode, b[max(0, len(b)-300):])
	}
	return nil
}

// firstAnswer sends requests to a process that is starting until it answers one.
func (p *process) firstAnswer(ctx context.Context) time.Duration {
	k := client{prompt: 100, answer: 1}
	for {
		if url := p.url(); url != "" && k.ask(ctx, url, 1) == nil {
			return time.Since(p.began)
		}
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(lookEvery):
		}
	}
}
