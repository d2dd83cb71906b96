package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// request is one for /v1/completions.
type request struct{ body []byte }

var words = strings.Fields("time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game line end member law car city")

// text is n words that depend on the generator alone.
func text(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(' ')
	}
	return b.String()
}

// randomRequests differ in how much of their prompts others have, in the lengths of prompts
// and answers, and in how ids are drawn.
func randomRequests(seed uint64, n int) []request {
	r := rand.New(rand.NewPCG(seed, 1))
	var systems []string
	for range 8 {
		systems = append(systems, text(r, 10+r.IntN(150)))
	}
	var all []request
	for range n {
		fields := map[string]any{"prompt": text(r, 1+r.IntN(60)), "max_tokens": 1 + r.IntN(24), "temperature": 0}
		if r.IntN(3) > 0 {
			fields["prompt"] = systems[r.IntN(len(systems))] + text(r, r.IntN(40))
		}
		if r.IntN(2) == 0 {
			fields["temperature"], fields["seed"] = 0.2+r.Float64(), r.IntN(1000)
		}
		if r.IntN(3) == 0 {
			fields["logprobs"] = r.IntN(4)
		}
		switch r.IntN(6) {
		case 0:
			fields["top_p"], fields["top_k"] = 0.9, 20
		case 1:
			fields["frequency_penalty"], fields["presence_penalty"], fields["repetition_penalty"] = 0.6, 0.3, 1.1
		case 2:
			fields["n"] = 2
		case 3:
			fields["ignore_eos"], fields["max_tokens"] = true, 30+r.IntN(30)
		}
		all = append(all, request{marshal(fields)})
	}
	return all
}

func marshal(fields map[string]any) []byte {
	b, err := json.Marshal(fields, json.Deterministic(true))
	if err != nil {
		panic("BUG: a request has no JSON form: " + err.Error())
	}
	return b
}

// answer is what counts of a response.
type answer struct {
	Choices []struct {
		Index    int            `json:"index"`
		Text     string         `json:"text"`
		Finish   string         `json:"finish_reason"`
		Logprobs jsontext.Value `json:"logprobs"`
	} `json:"choices"`
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	} `json:"usage"`
}

// differs says how a differs from what is wanted.
func (a *answer) differs(want *answer) string {
	if len(a.Choices) != len(want.Choices) || a.Usage != want.Usage {
		return fmt.Sprintf("%d choices of %+v, want %d of %+v", len(a.Choices), a.Usage, len(want.Choices), want.Usage)
	}
	for i := range a.Choices {
		g, w := &a.Choices[i], &want.Choices[i]
		if g.Index != w.Index || g.Text != w.Text || g.Finish != w.Finish || !bytes.Equal(g.Logprobs, w.Logprobs) {
			return fmt.Sprintf("choice %d: %q %s %s, want %q %s %s", i, g.Text, g.Finish, g.Logprobs, w.Text, w.Finish, w.Logprobs)
		}
	}
	return ""
}

func tokens(answers []answer) (n int) {
	for i := range answers {
		n += answers[i].Usage.Completion
	}
	return n
}

// askAll asks all requests, some at once, and fails with the first that is not answered.
func (c *cluster) askAll(ctx context.Context, requests []request) ([]answer, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	answers := make([]answer, len(requests))
	client := &http.Client{Timeout: requestTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: c.o.parallel}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	var asking sync.WaitGroup
	for range c.o.parallel {
		asking.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(requests) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := c.ask(ctx, client, &requests[i], &answers[i]); err != nil {
					fail(fmt.Errorf("request %d (%s): %w", i, requests[i].body, err))
				}
			}
		})
	}
	asking.Wait()
	return answers, context.Cause(ctx)
}

// ask asks one.
func (c *cluster) ask(ctx context.Context, client *http.Client, r *request, a *answer) error {
	body := append([]byte(`{"model":"`+served+`",`), r.body[1:]...)
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	response, err := client.Do(q)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d: %s", response.StatusCode, b)
	}
	return json.Unmarshal(b, a)
}
