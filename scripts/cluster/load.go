package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// load keeps a number of streams going over all frontends and compares each with
// its request's undisturbed answer. Each stream's goroutine ends at stop, or when
// its context does.
type load struct {
	requests []request
	want     []answer
	client   *http.Client
	timeout  time.Duration
	streams  sync.WaitGroup
	mu       struct {
		sync.Mutex
		targets  []target // one a frontend
		next     int
		stopping bool
		outcomes []outcome
	}
}

// target is a frontend as the load sees it.
type target struct {
	url     string
	avoided bool // no more requests go there
	dead    bool // what is under way there is lost by nature
	opening int  // requests that have not had their first event
}

// outcome is how one stream went.
type outcome struct {
	*request
	frontend     int
	began, ended time.Time
	arrivals     []time.Time
	err          error
	differs      string // how, if it ended well with another answer
	lost         bool   // with its frontend
}

// steady says whether the stream has an event for each token: none while a stop
// string may have begun, and two where there are two choices.
func (o *outcome) steady() bool { return !o.straddle && o.choices == 1 }

// gaps yields the time from each event to the next, the first counted from the
// request, with the time of the earlier one.
func (o *outcome) gaps() iter.Seq2[time.Duration, time.Time] {
	return func(yield func(time.Duration, time.Time) bool) {
		last := o.began
		for _, at := range o.arrivals {
			if !yield(at.Sub(last), last) {
				return
			}
			last = at
		}
	}
}

// newClient returns a client that keeps as many connections as there are streams.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxConcurrent, DisableCompression: true}}
}

// newLoad asks every request once of the undisturbed cluster.
func (t *trial) newLoad(ctx context.Context, requests []request) (*load, error) {
	l := &load{client: newClient(), timeout: requestTimeout}
	if t.engine == engineNative {
		l.timeout = nativeTimeout
	}
	for _, f := range t.cluster.alive() {
		l.mu.targets = append(l.mu.targets, target{url: f.url})
	}
	l.requests, l.want = make([]request, len(requests)), make([]answer, len(requests))
	errs := make([]error, len(requests))
	var asking sync.WaitGroup
	for i := range requests {
		asking.Go(func() { errs[i] = l.expect(ctx, i, requests[i]) })
	}
	asking.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if err := errors.Join(errs[:min(len(errs), maxExamples)]...); err != nil {
		return nil, fmt.Errorf("ask the undisturbed cluster: %w", err)
	}
	return l, nil
}

// expect learns the undisturbed answer of request i, and makes its stop string
// first if it wants one.
func (l *load) expect(ctx context.Context, i int, r request) error {
	url := l.mu.targets[i%len(l.mu.targets)].url
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	a, err := stream(ctx, l.client, url, &r, func(time.Time) {})
	if err == nil && r.straddle {
		text := []rune(a.texts[0])
		before, stop := string(text[:len(text)*3/10]), string(text[len(text)*3/10:len(text)*17/20])
		r = r.with("stop", stop)
		if a, err = stream(ctx, l.client, url, &r, func(time.Time) {}); err == nil && (a.texts[0] != before || a.finishes[0] != "stop") {
			err = fmt.Errorf("with stop string %q got %q (%s), want %q", stop, a.texts[0], a.finishes[0], before)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	if n, ok := r.fields["max_tokens"].(int); ok && !strings.Contains(strings.Join(a.finishes, " "), "stop") && a.completion != n*r.choices {
		return fmt.Errorf("%s: usage says %d tokens, want %d", r.name, a.completion, n*r.choices)
	}
	l.requests[i], l.want[i] = r, *a
	return nil
}

// begin keeps n streams going until stop.
func (l *load) begin(ctx context.Context, n int) {
	for range n {
		l.streams.Go(func() { l.keep(ctx) })
	}
}

// startLoad is newLoad and begin, and waits until the streams are under way.
func (t *trial) startLoad(ctx context.Context) (*load, error) {
	requests, n, settle := echoRequests(), t.o.concurrent, 700*time.Millisecond
	if t.engine == engineNative {
		requests, n, settle = nativeRequests(), nativeStreams, 2*time.Second
	}
	l, err := t.newLoad(ctx, requests)
	if err != nil {
		return nil, err
	}
	l.begin(ctx, n)
	return l, sleep(ctx, settle)
}

// keep sends one request after the other.
func (l *load) keep(ctx context.Context) {
	for ctx.Err() == nil {
		request, frontend, ok := l.take()
		if !ok {
			return
		}
		o := l.one(ctx, request, frontend)
		l.mu.Lock()
		o.lost = l.mu.targets[frontend].dead && o.err != nil
		l.mu.outcomes = append(l.mu.outcomes, o)
		l.mu.Unlock()
		if o.err != nil && sleep(ctx, 10*time.Millisecond) != nil {
			return
		}
	}
}

// take chooses the next request and its frontend.
func (l *load) take() (request, frontend int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.stopping {
		return 0, 0, false
	}
	n := l.mu.next
	l.mu.next++
	for range l.mu.targets {
		frontend = (n/len(l.requests) + n) % len(l.mu.targets)
		if !l.mu.targets[frontend].avoided {
			l.mu.targets[frontend].opening++
			return n % len(l.requests), frontend, true
		}
		n++
	}
	return 0, 0, false
}

// one sends a request and compares its answer.
func (l *load) one(ctx context.Context, request, frontend int) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, l.timeout, fmt.Errorf("the request took longer than %v", l.timeout))
	defer cancel()
	l.mu.Lock()
	url := l.mu.targets[frontend].url
	l.mu.Unlock()
	r := &l.requests[request]
	o := outcome{request: r, frontend: frontend, began: time.Now()}
	opened := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.mu.targets[frontend].opening--
	}
	a, err := stream(ctx, l.client, url, r, func(at time.Time) {
		if len(o.arrivals) == 0 {
			opened()
		}
		o.arrivals = append(o.arrivals, at)
	})
	if len(o.arrivals) == 0 {
		opened()
	}
	o.ended = time.Now()
	if err == nil {
		o.differs = a.differs(&l.want[request])
	} else if ctx.Err() != nil {
		err = fmt.Errorf("%w (%w), after %d events", err, context.Cause(ctx), len(o.arrivals))
	}
	o.err = err
	return o
}

// avoid sends no more requests to a frontend, and returns once those under way
// there have had their first event.
func (l *load) avoid(ctx context.Context, frontend int) error {
	l.mu.Lock()
	l.mu.targets[frontend].avoided = true
	l.mu.Unlock()
	return until(ctx, requestTimeout, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := l.mu.targets[frontend].opening; n > 0 {
			return fmt.Errorf("%d requests have not begun", n)
		}
		return nil
	})
}

// bury sends no more requests to a frontend and gives up those under way there.
func (l *load) bury(frontend int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.targets[frontend].avoided, l.mu.targets[frontend].dead = true, true
}

// stop lets the streams under way end, and returns how all of them went.
func (l *load) stop() []outcome {
	l.mu.Lock()
	l.mu.stopping = true
	l.mu.Unlock()
	l.streams.Wait()
	l.client.CloseIdleConnections()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.outcomes
}

// get fetches a small page, whatever its status.
func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(io.LimitReader(response.Body, maxBodyBytes))
}
