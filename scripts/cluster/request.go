package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The endpoints.
const (
	pathChat       = "/v1/chat/completions"
	pathCompletion = "/v1/completions"
)

// request is one that is sent again and again.
type request struct {
	name    string
	path    string
	fields  map[string]any // of the body
	choices int
	// straddle asks for a stop string cut out of the undisturbed answer, so long
	// that most breaks fall into it.
	straddle bool
}

// body is the request as JSON, streamed and with usage.
func (r *request) body() []byte {
	all := map[string]any{"model": model, "stream": true, "stream_options": map[string]any{"include_usage": true}}
	for k, v := range r.fields {
		all[k] = v
	}
	b, err := json.Marshal(all, json.Deterministic(true))
	if err != nil {
		panic("BUG: a request has no JSON form: " + err.Error())
	}
	return b
}

// with returns r with one more field.
func (r request) with(name string, value any) request {
	fields := map[string]any{name: value}
	for k, v := range r.fields {
		if k != name {
			fields[k] = v
		}
	}
	r.fields = fields
	return r
}

// answer is what a client sees of a stream, put together.
type answer struct {
	texts, finishes    []string   // by choice
	logprobs           []logprobs // by choice
	prompt, completion int        // usage
}

// logprobs are the columns of a choice's logprobs over all its events: how many
// tokens an event brings depends on how fast they are read.
type logprobs map[string]string

// String prints the columns in the order of their names.
func (l logprobs) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l)) {
		b.WriteString(name + ":" + l[name] + "\n")
	}
	return b.String()
}

// differs says how a differs from the undisturbed answer.
func (a *answer) differs(want *answer) string {
	columns := func(all []logprobs) (printed []string) {
		for _, l := range all {
			printed = append(printed, l.String())
		}
		return printed
	}
	for _, c := range []struct {
		what      string
		got, want []string
	}{{"text", a.texts, want.texts}, {"finish reason", a.finishes, want.finishes}, {"logprobs", columns(a.logprobs), columns(want.logprobs)}} {
		if slices.Equal(c.got, c.want) {
			continue
		}
		for i := range c.got {
			if c.got[i] != c.want[i] {
				got, want := diverge(c.got[i], c.want[i])
				return fmt.Sprintf("%s of choice %d: got …%q, want …%q", c.what, i, got, want)
			}
		}
	}
	if a.prompt != want.prompt || a.completion != want.completion {
		return fmt.Sprintf("usage: got %d+%d tokens, want %d+%d", a.prompt, a.completion, want.prompt, want.completion)
	}
	return ""
}

// diverge cuts two texts to where they part.
func diverge(a, b string) (string, string) {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	cut := func(s string) string { return s[max(0, n-20):min(len(s), n+40)] }
	return cut(a), cut(b)
}

// event is one event of a stream.
type event struct {
	ID      string `json:"id"`
	Choices []struct {
		Index        int                         `json:"index"`
		Text         string                      `json:"text"`
		Delta        eventDelta                  `json:"delta"`
		Logprobs     map[string][]jsontext.Value `json:"logprobs"`
		FinishReason string                      `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	} `json:"usage"`
	Error jsontext.Value `json:"error"`
}

type eventDelta struct {
	Content string `json:"content"`
}

// stream sends r and reads its answer to the end, calling arrived at each event.
// It fails unless the stream is whole.
func stream(ctx context.Context, client *http.Client, url string, r *request, arrived func(time.Time)) (*answer, error) {
	response, err := post(ctx, client, url+r.path, r.body())
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	a := &answer{texts: make([]string, r.choices), finishes: make([]string, r.choices), logprobs: make([]logprobs, r.choices)}
	id := ""
	err = events(response.Body, func(data []byte) error {
		arrived(time.Now())
		var e event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read an event: %w: %s", err, data)
		}
		if len(e.Error) > 0 {
			return fmt.Errorf("the stream holds an error: %s", e.Error)
		}
		if id == "" {
			id = e.ID
		}
		if e.ID != id {
			return fmt.Errorf("the stream's id changes from %s to %s", id, e.ID)
		}
		return a.add(&e)
	})
	if err != nil {
		return nil, err
	}
	for i, f := range a.finishes {
		if f == "" {
			return nil, fmt.Errorf("choice %d has no finish reason", i)
		}
	}
	if a.prompt == 0 {
		return nil, errors.New("the stream ends without usage")
	}
	return a, nil
}

// post sends a body and wants 200.
func post(ctx context.Context, client *http.Client, url string, body []byte) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	response, err := client.Do(q)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(response.Body, maxLine)) // what there is
		return nil, fmt.Errorf("HTTP %d: %s", response.StatusCode, bytes.TrimSpace(b))
	}
	return response, nil
}

// events reads server-sent events until [DONE] and the end after it.
func events(body io.Reader, each func(data []byte) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), maxEventBytes)
	done := false
	for lines.Scan() {
		line := lines.Bytes()
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case len(line) == 0 || line[0] == ':':
		case done:
			return fmt.Errorf("the stream goes on after [DONE]: %q", line)
		case !ok:
			return fmt.Errorf("the stream holds a line that is no event: %q", line)
		case string(data) == "[DONE]":
			done = true
		default:
			if err := each(data); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the stream breaks: %w", err)
	}
	if !done {
		return errors.New("the stream ends without [DONE]")
	}
	return nil
}

// add takes in one event.
func (a *answer) add(e *event) error {
	for i := range e.Choices {
		c := &e.Choices[i]
		if c.Index < 0 || c.Index >= len(a.texts) {
			return fmt.Errorf("an event is for choice %d of %d", c.Index, len(a.texts))
		}
		if a.finishes[c.Index] != "" {
			return fmt.Errorf("choice %d goes on after its end", c.Index)
		}
		a.texts[c.Index] += c.Text + c.Delta.Content
		a.finishes[c.Index] = c.FinishReason
		for name, column := range c.Logprobs {
			if a.logprobs[c.Index] == nil {
				a.logprobs[c.Index] = logprobs{}
			}
			for _, v := range column {
				a.logprobs[c.Index][name] += " " + string(v)
			}
		}
	}
	if e.Usage != nil {
		if a.prompt > 0 {
			return errors.New("usage comes twice")
		}
		a.prompt, a.completion = e.Usage.Prompt, e.Usage.Completion
	}
	return nil
}

// words make prompts.
var words = strings.Fields("time year people way day man thing woman life child world school state family student group country problem hand part place case week company system program question work government number night point home water room mother area money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game line end member law car city")

// prompt is a text of n words; each i has another.
func prompt(i, n int) string {
	text := make([]string, n)
	for k := range text {
		text[k] = words[(i*31+k*(7+i%5)+k*k)%len(words)]
	}
	return strings.Join(text, " ")
}

// chat makes a chat request.
func chat(name string, i, length, tokens int) request {
	messages := []map[string]string{
		{"role": "system", "content": prompt(i, 8)},
		{"role": "user", "content": prompt(i+1000, length)},
	}
	return request{name: fmt.Sprintf("%s %d", name, i), path: pathChat, choices: 1, fields: map[string]any{"messages": messages, "max_tokens": tokens, "temperature": 0}}
}

// completion makes a text completion request.
func completion(name string, i, length, tokens int) request {
	return request{name: fmt.Sprintf("%s %d", name, i), path: pathCompletion, choices: 1, fields: map[string]any{"prompt": prompt(i, length), "max_tokens": tokens, "temperature": 0}}
}

// echoRequests are what the echo engine is asked. Prompts are longer than
// answers, so that no part of an answer comes twice.
func echoRequests() []request {
	var all []request
	for i := range 4 {
		sampled := chat("sampled chat", 30+i, 80, 60).with("temperature", 1).with("seed", i).with("top_p", 0.9).with("frequency_penalty", 0.5).with("presence_penalty", 0.2)
		several := chat("chat of two choices", 10+i, 80, 40).with("n", 2)
		several.choices = 2
		stopped := chat("chat with a stop string", 20+i, 90, 70)
		stopped.straddle = true
		all = append(all, chat("chat", i, 80, 64), completion("completion", 40+i, 100, 80), several, stopped, sampled)
	}
	return all
}

// nativeRequests are what a model is asked.
func nativeRequests() []request {
	sampled := chat("sampled chat with logprobs", 1, 30, 40).with("temperature", 1).with("seed", 7).with("logprobs", true).with("top_logprobs", 3)
	penalized := chat("penalized chat", 2, 30, 40).with("temperature", 1).with("seed", 8).with("frequency_penalty", 0.8).with("presence_penalty", 0.4).with("repetition_penalty", 1.1).with("logprobs", true)
	several := chat("sampled chat of two choices", 3, 30, 32).with("temperature", 1).with("seed", 9).with("n", 2).with("logprobs", true)
	several.choices = 2
	stopped := chat("chat with a stop string", 4, 30, 40)
	stopped.straddle = true
	sampledStop := completion("sampled completion with a stop string and logprobs", 5, 30, 40).with("temperature", 1).with("seed", 10).with("logprobs", 2)
	sampledStop.straddle = true
	return []request{sampled, penalized, several, stopped, sampledStop, completion("completion", 6, 30, 40)}
}
