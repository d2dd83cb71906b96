// Command latency measures what a frontend and a worker add to a real engine's time
// to first token and to its time between tokens. It stands between the worker and
// the engine, notes when a request and each event pass, and compares that with what
// its own client sees at the frontend: the difference is ours alone, however much
// the engine's own times vary. Requests straight to the engine run in turn with
// those, for the figures that a user would compare.
//
//	latency -tap 127.0.0.1:9000 -server http://127.0.0.1:8000 -front http://127.0.0.1:8080
//
// with a worker whose --engine-url is the tap.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	listen   = flag.String("tap", "127.0.0.1:9000", "where to stand before the engine")
	server   = flag.String("server", "", "URL of the engine")
	front    = flag.String("front", "", "URL of the frontend")
	model    = flag.String("model", "smollm2", "model to ask the frontend for")
	theirs   = flag.String("engine-model", "smollm2", "what the engine calls it")
	requests = flag.Int("n", 60, "requests on each way")
	tokens   = flag.Int("tokens", 40, "tokens of each answer")
	warmup   = flag.Int("warmup", 5, "requests before, which are not counted")
)

func main() {
	flag.Parse()
	if *server == "" || *front == "" || flag.NArg() > 0 {
		flag.Usage()
		log.Fatal("give -server and -front")
	}
	t, err := newTap(*server)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.ListenAndServe(*listen, t)) }()
	if err := ready(*front); err != nil {
		log.Fatal(err)
	}
	if err := measure(t); err != nil {
		log.Fatal(err)
	}
}

// ready waits until the frontend serves the model.
func ready(front string) error {
	for range 1200 {
		resp, err := http.Get(front + "/v1/models")
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && bytes.Contains(b, []byte(`"`+*model+`"`)) {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the frontend does not serve " + *model)
}

// passage is what the tap saw of a request, or a client: when it began, and when
// each event came.
type passage struct {
	began  time.Time
	events []time.Time
}

// tap passes everything on and notes the streams of generating requests.
type tap struct {
	proxy *httputil.ReverseProxy
	mu    struct {
		sync.Mutex
		last *passage
	}
}

func newTap(server string) (*tap, error) {
	target, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	t := &tap{}
	t.proxy = &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	return t, nil
}

func (t *tap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		t.proxy.ServeHTTP(w, r)
		return
	}
	p := &passage{began: time.Now()}
	t.mu.Lock()
	t.mu.last = p
	t.mu.Unlock()
	t.proxy.ServeHTTP(&noting{ResponseWriter: w, t: t, p: p}, r)
}

// noting notes when each piece of an answer passes.
type noting struct {
	http.ResponseWriter
	t *tap
	p *passage
}

func (n *noting) Write(b []byte) (int, error) {
	now := time.Now()
	n.t.mu.Lock()
	for range bytes.Count(b, []byte("\n\n")) {
		n.p.events = append(n.p.events, now)
	}
	n.t.mu.Unlock()
	return n.ResponseWriter.Write(b)
}

func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }

// taken returns what passed since the last call.
func (t *tap) taken() passage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.last == nil {
		return passage{}
	}
	p := *t.mu.last
	p.events = slices.Clone(p.events)
	t.mu.last = nil
	return p
}

// figures are times in milliseconds.
type figures struct{ ttft, itl []float64 }

func (f *figures) take(p passage) {
	f.ttft = append(f.ttft, ms(p.events[0].Sub(p.began)))
	for i := 1; i < len(p.events); i++ {
		f.itl = append(f.itl, ms(p.events[i].Sub(p.events[i-1])))
	}
}

func measure(t *tap) error {
	var through, direct, added figures
	for i := range *warmup + *requests {
		prompt := text(uint64(i))
		ours, err := ask(*front, *model, prompt)
		if err != nil {
			return err
		}
		seen := t.taken()
		straight, err := ask(*server, *theirs, text(uint64(i)+1<<32))
		if err != nil {
			return err
		}
		if len(seen.events) == 0 || len(ours.events) == 0 || len(straight.events) == 0 {
			return fmt.Errorf("request %d: events: %d at the client, %d at the tap, %d straight", i, len(ours.events), len(seen.events), len(straight.events))
		}
		if i < *warmup {
			continue
		}
		through.take(ours)
		direct.take(straight)
		added.ttft = append(added.ttft, ms(seen.began.Sub(ours.began)+ours.events[0].Sub(seen.events[0])))
		for k := 1; k < min(len(ours.events), len(seen.events)); k++ {
			added.itl = append(added.itl, ms(ours.events[k].Sub(ours.events[k-1])-seen.events[k].Sub(seen.events[k-1])))
		}
	}
	fmt.Printf("%d requests each way in turn, one at a time, %d tokens; ms\n", *requests, *tokens)
	for _, row := range []struct {
		name string
		f    figures
	}{{"through dynamo", through}, {"straight to the engine", direct}, {"added by dynamo", added}} {
		fmt.Printf("%-24s TTFT p50 %8.3f p99 %8.3f   ITL p50 %8.3f p99 %8.3f\n", row.name, at(row.f.ttft, 0.5), at(row.f.ttft, 0.99), at(row.f.itl, 0.5), at(row.f.itl, 0.99))
	}
	return nil
}

// ask streams one completion and notes when each token comes.
func ask(base, model, prompt string) (p passage, err error) {
	body, err := json.Marshal(map[string]any{"model": model, "prompt": prompt, "max_tokens": *tokens, "ignore_eos": true, "temperature": 0, "stream": true})
	if err != nil {
		return p, err
	}
	req, err := http.NewRequest(http.MethodPost, base+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return p, err
	}
	req.Header.Set("Content-Type", "application/json")
	p.began = time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); ; {
		if !lines.Scan() {
			return p, lines.Err()
		}
		line, found := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !found:
			continue
		case line == "[DONE]":
			return p, nil
		case strings.Contains(line, `"error"`):
			return p, errors.New(line)
		}
		p.events = append(p.events, time.Now())
	}
}

// text is a prompt of about 60 tokens that nobody has asked before.
func text(seed uint64) string {
	r, b := rand.New(rand.NewPCG(seed, uint64(time.Now().UnixNano()))), strings.Builder{}
	for range 40 {
		fmt.Fprintf(&b, "%c%c%c ", 'a'+r.IntN(26), 'a'+r.IntN(26), 'a'+r.IntN(26))
	}
	return b.String()
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// at returns the value at a share of the sorted list.
func at(list []float64, share float64) float64 {
	slices.Sort(list)
	return list[int(share*float64(len(list)-1))]
}
