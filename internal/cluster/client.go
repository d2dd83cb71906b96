package cluster

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// request is one client's wish and what it expects.
type request struct {
	n       int // its number
	front   string
	at      time.Duration
	prompt  string
	tokens  int
	choices int
	stop    string
	abort   int      // after so many events the client goes away; 0: it stays
	answers []string // of each choice, undisturbed and without the stop string
}

// expected is the text of an undisturbed answer.
func (r *request) expected(choice int) (text, finish string) {
	text = r.answers[choice]
	if i := strings.Index(text, r.stop); r.stop != "" && i >= 0 {
		return text[:i], "stop"
	}
	return text, "length"
}

// outcome is how a request ended.
type outcome struct {
	request
	texts      []string
	finishes   []string
	done       bool // [DONE] came
	completion int  // usage
	err        error
	aborted    bool
	took       time.Duration
}

// load draws the requests of a run. The echo engine repeats the prompt, and the
// tokenizer has one token per byte; what a mocker answers is asked of one.
func (s Shape) load(ctx context.Context, seed uint64) []request {
	answers := func(r *request) []string {
		return slices.Repeat([]string{strings.Repeat(r.prompt, r.tokens/len(r.prompt)+1)[:r.tokens]}, r.choices)
	}
	if s.Mocker {
		o := newOracle()
		defer o.end()
		answers = func(r *request) []string { return o.ask(ctx, r) }
	}
	all := make([]request, s.Requests)
	for i := range all {
		d := draws{seed: seed, key: fmt.Sprintf("request %d", i)}
		r := request{n: i, front: fmt.Sprintf("front%d", 1+d.below(s.Frontends)), at: d.between(0, s.Length), tokens: 1 + d.below(150), choices: 1}
		prompt := make([]byte, 3+d.below(40))
		for j := range prompt {
			prompt[j] = "abcdefghijklmnopqrstuvwxyz0123456789 "[d.below(37)]
		}
		r.prompt = string(prompt)
		if s.Mocker && d.below(2) == 0 {
			r.prompt = sharedPrefix[:4*d.below(len(sharedPrefix)/4)] + r.prompt
		}
		switch d.below(8) {
		case 0:
			r.choices = 2 + d.below(3)
		case 1: // a stop string that straddles many a break
			at := d.below(len(prompt))
			r.stop = (r.prompt + r.prompt)[at : at+2+d.below(len(prompt)-1)]
		case 2:
			r.abort = 1 + d.below(r.tokens)
		}
		r.answers = answers(&r)
		if text := r.answers[0]; s.Mocker && r.stop != "" && len(text) > 2 {
			at := d.below(len(text) - 2)
			r.stop = text[at : at+1+d.below(min(4, len(text)-at))]
		}
		all[i] = r
	}
	return all
}

// drive sends the requests at their times and returns how each ended. Where another
// frontend is there, what one has cut is sent again to that, as a further request.
func drive(ctx context.Context, all []request, dial func(ctx context.Context, network, address string) (net.Conn, error)) []outcome {
	transport := &http.Transport{DialContext: dial, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	out, again := make([]outcome, len(all)), make([]*outcome, len(all))
	var running sync.WaitGroup
	for i := range all {
		running.Go(func() {
			time.Sleep(all[i].at)
			began := time.Now()
			out[i] = ask(ctx, client, all[i])
			out[i].took = time.Since(began)
			if all[i].front != firstFront && out[i].cut() {
				r := all[i]
				r.front, r.abort = firstFront, 0
				o := ask(ctx, client, r)
				again[i] = &o
			}
		})
	}
	running.Wait()
	for _, o := range again {
		if o != nil {
			out = append(out, *o)
		}
	}
	return out
}

// cut reports whether the answer did not come to its end, for whatever reason.
func (o *outcome) cut() bool { return !o.aborted && (o.err != nil || !o.done) }

// streamed is what is read of a streamed answer.
type streamed struct {
	Choices []struct {
		Index  int    `json:"index"`
		Text   string `json:"text"`
		Finish string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Completion int `json:"completion_tokens"`
	} `json:"usage"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func ask(ctx context.Context, client *http.Client, r request) outcome {
	o := outcome{request: r, texts: make([]string, r.choices), finishes: make([]string, r.choices)}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body := map[string]any{
		"model": modelName, "prompt": r.prompt, "max_tokens": r.tokens, "n": r.choices, "stream": true, "ignore_eos": true, "temperature": 0,
		"stream_options": map[string]any{"include_usage": true},
	}
	if r.stop != "" {
		body["stop"] = r.stop
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+r.front+":80/v1/completions", bytes.NewReader(b))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		o.err = err
		return o
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body) // the status is the error
		o.err = fmt.Errorf("status %d: %s", resp.StatusCode, b)
		return o
	}
	o.read(resp.Body)
	return o
}

// read takes in the events of an answer.
func (o *outcome) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	events := 0
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok:
			continue
		case o.done:
			o.err = fmt.Errorf("an event after the end: %s", data)
			return
		case data == "[DONE]":
			o.done = true
			continue
		}
		var e streamed
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			o.err = fmt.Errorf("event %q: %w", data, err)
			return
		}
		if e.Error != nil {
			o.err = fmt.Errorf("error in the stream: %s", e.Error.Message)
			return
		}
		for _, c := range e.Choices {
			if o.finishes[c.Index] != "" && (c.Text != "" || c.Finish != "") {
				o.err = fmt.Errorf("choice %d goes on after its end: %s", c.Index, data)
				return
			}
			o.texts[c.Index] += c.Text
			o.finishes[c.Index] += c.Finish
		}
		if e.Usage != nil {
			o.completion = e.Usage.Completion
		}
		if events++; events == o.abort {
			o.aborted = true
			return
		}
	}
	o.err = lines.Err()
}

// check compares the outcome with an undisturbed run (I1, I2).
func (o *outcome) check() error {
	if o.aborted {
		return nil
	}
	if o.err != nil {
		return fmt.Errorf("I1: request %d: %w", o.n, o.err)
	}
	if !o.done {
		return fmt.Errorf("I1: request %d: the stream ends without [DONE]", o.n)
	}
	whole := true
	for c := range o.texts {
		text, finish := o.expected(c)
		whole = whole && finish == "length"
		if o.texts[c] != text {
			return fmt.Errorf("I2: request %d, choice %d: got %q, want %q", o.n, c, o.texts[c], text)
		}
		if o.finishes[c] != finish {
			return fmt.Errorf("I1: request %d, choice %d: finish reason %q, want %q", o.n, c, o.finishes[c], finish)
		}
	}
	if want := o.tokens * o.choices; whole && o.completion != want {
		return fmt.Errorf("I1: request %d: usage says %d completion tokens, want %d", o.n, o.completion, want)
	}
	return nil
}
