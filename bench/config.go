package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// Config says what is asked of whom, when, and what is measured.
type Config struct {
	// URLs are base addresses of the endpoint; connections are dealt to them in turn.
	URLs []string
	// Model is the served model's name.
	Model string
	// Completions asks /v1/completions instead of /v1/chat/completions, PromptIDs
	// with token ids instead of text.
	Completions, PromptIDs bool
	// FirstID and LastID are the range of token ids prompts are made of, with
	// PromptIDs and no Tokenizer.
	FirstID, LastID dynamo.TokenID
	// Unary asks for plain answers instead of streams.
	Unary bool
	// IgnoreEOS adds ignore_eos and min_tokens, which make engines answer with
	// exactly the tokens asked for; not all endpoints know them.
	IgnoreEOS bool
	// Tools is how many tool definitions each chat carries, ToolChoice its
	// tool_choice; empty leaves it out.
	Tools      int
	ToolChoice string
	// Extra are further members of the body, a JSON object; they go before ours.
	Extra []byte
	// Headers are further header lines, "Name: value".
	Headers []string
	// APIKey is sent as a bearer token, if not empty.
	APIKey string

	// Input and Output are the synthetic lengths in tokens. Without a Tokenizer and
	// PromptIDs a prompt has as many words.
	Input, Output Lengths
	// PrefixGroups is how many shared beginnings of PrefixTokens tokens there are,
	// of which each prompt has one; PrefixSystem makes it a system message.
	PrefixGroups, PrefixTokens int
	PrefixSystem               bool
	// Trace gives the requests instead of the synthetic lengths; nil for none.
	Trace iter.Seq2[trace.Request, error]
	// Tokenizer makes text prompts of exact lengths and counts answers whose server
	// does not; nil for none.
	Tokenizer *tokenizer.Tokenizer
	// Seed makes another run of the same shape whose prompts share nothing with
	// this one's.
	Seed uint64

	// Concurrency is how many requests a closed loop keeps open; 0 is no closed
	// loop. RampUp is the time over which it starts them.
	Concurrency int
	RampUp      time.Duration
	// Arrival is an open loop's process; a Rate of 0 is no open loop. With neither a
	// closed nor an open loop the Trace's own times hold, divided by Speedup.
	Arrival trace.Arrival
	Speedup float64
	// Connections is how many an open loop or a trace may have open at once.
	Connections int

	// WarmUp is how many synthetic requests are sent before, in a closed loop.
	WarmUp int
	// Requests and Duration end the run, whichever comes first; 0 is no bound.
	Requests int
	Duration time.Duration
	// Grace is how long requests that are open at the end of Duration may take; what
	// is open then is cut.
	Grace time.Duration
	// Timeout bounds one request.
	Timeout time.Duration
	// MaxErrors ends the run when there are more errors; 0 is no bound.
	MaxErrors int
	// CancelRate is the share of requests that the client gives up: a stream after a
	// drawn number of events, a plain answer within CancelAfter.
	CancelRate  float64
	CancelAfter time.Duration
	// Goodput are the targets an answer has to keep: ttft, itl, e2e.
	Goodput map[string]time.Duration

	// Gaps keeps each request's gaps for its record.
	Gaps bool
	// Record receives every measured request in the order they ended, from one
	// goroutine; nil for none. Its error ends the run.
	Record func(*Record) error
	// Progress is called once a second, and at the end of each phase; nil for none.
	Progress func(*Progress)
	// PIDs are processes to account for, by name.
	PIDs map[string]int
	// QuickAck acknowledges what comes at once (Linux), which hides that a server
	// leaves Nagle's algorithm on; compare with and without.
	QuickAck bool
	// Dial connects; nil is the network. TLS is for https; nil checks certificates
	// against the system's roots.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	TLS  *tls.Config
	// Settings and Version are copied to the Result.
	Settings map[string]string
	Version  string
}

// Lengths is a distribution of lengths in tokens: normal, cut at 1.
type Lengths struct {
	Mean, StdDev float64
}

// DefaultConfig has the defaults of every field that is not a question of what is
// measured.
func DefaultConfig() Config {
	return Config{
		Input: Lengths{Mean: 128}, Output: Lengths{Mean: 64}, Seed: 1, Speedup: 1, FirstID: 1000, LastID: 30000,
		Connections: 4096, Grace: 30 * time.Second, Timeout: 5 * time.Minute, CancelAfter: time.Second,
	}
}

// Modes of a run.
const (
	modeClosed = "closed"
	modeOpen   = "open"
	modeTrace  = "trace"
)

func (c *Config) mode() string {
	switch {
	case c.Arrival.Rate > 0:
		return modeOpen
	case c.Concurrency > 0:
		return modeClosed
	}
	return modeTrace
}

func (c *Config) path() string {
	if c.Completions {
		return "/v1/completions"
	}
	return "/v1/chat/completions"
}

// faults collects what is wrong with a configuration.
type faults []error

func (f *faults) add(bad bool, format string, args ...any) {
	if bad {
		*f = append(*f, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)})
	}
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var f faults
	f.add(len(c.URLs) == 0, "--url is missing; give the endpoint's base address")
	for _, u := range c.URLs {
		if _, err := newTarget(u, c.path(), nil); err != nil {
			f.add(true, "%v", err)
		}
	}
	f.add(c.Model == "", "--model is missing; give the name the endpoint serves it under")
	c.checkBody(&f)
	c.checkLoad(&f)
	for name, d := range c.Goodput {
		f.add(name != "ttft" && name != "itl" && name != "e2e", "%q is no goodput target; there are ttft, itl and e2e", name)
		f.add(d <= 0, "--%s is %v; it must be above 0", name, d)
		f.add(c.Unary && name != "e2e", "--%s needs streaming; a plain answer has only an end", name)
	}
	return errors.Join(f...)
}

func (c *Config) checkBody(f *faults) {
	f.add(c.PromptIDs && !c.Completions, "--prompt-ids needs --endpoint completions; chats are text")
	f.add(c.PromptIDs && c.Tokenizer == nil && c.LastID < c.FirstID, "--prompt-id-range ends before it begins")
	f.add(c.Completions && (c.Tools > 0 || c.PrefixSystem), "--tools and --prefix-system need --endpoint chat")
	f.add(c.Tools < 0 || c.Tools > 1024, "--tools is %d; it must be within 0 and 1024", c.Tools)
	f.add(len(c.Extra) > 0 && (!jsontext.Value(c.Extra).IsValid() || jsontext.Value(c.Extra).Kind() != '{'), "--extra is not a JSON object such as {\"temperature\":0}")
	for _, h := range c.Headers {
		name, _, ok := strings.Cut(h, ":")
		f.add(!ok || strings.TrimSpace(name) == "" || strings.ContainsAny(h, "\r\n") || strings.ContainsAny(name, " \t"), "--header %q is not of the form \"Name: value\"", h)
	}
	f.add(strings.ContainsAny(c.APIKey, "\r\n"), "--api-key has a line break")
	for _, l := range []struct {
		flag string
		Lengths
	}{{"input-tokens", c.Input}, {"output-tokens", c.Output}} {
		f.add(!(l.Mean >= 1 && l.Mean <= maxPromptTokens) || !(l.StdDev >= 0 && l.StdDev <= maxPromptTokens), "--%s: mean %v and deviation %v must be at least 1 and 0, and at most %d", l.flag, l.Mean, l.StdDev, maxPromptTokens)
	}
	f.add(c.PrefixGroups < 0 || c.PrefixTokens < 0 || c.PrefixTokens > maxPromptTokens, "--prefix-groups and --prefix-tokens must not be negative")
	f.add((c.PrefixGroups > 0) != (c.PrefixTokens > 0), "--prefix-groups and --prefix-tokens belong together")
	f.add(c.PrefixGroups > 0 && float64(c.PrefixTokens) > c.Input.Mean, "--prefix-tokens is more than --input-tokens, which counts them in")
	f.add(c.Trace != nil && c.PrefixGroups > 0, "--prefix-groups is for synthetic lengths; a trace says itself what is shared")
}

func (c *Config) checkLoad(f *faults) {
	f.add(c.Concurrency < 0 || c.Concurrency > maxConnections, "--concurrency is %d; it must be within 1 and %d", c.Concurrency, maxConnections)
	f.add(c.Connections < 1 || c.Connections > maxConnections, "--connections is %d; it must be within 1 and %d", c.Connections, maxConnections)
	f.add(c.Concurrency > 0 && c.Arrival.Rate != 0, "--concurrency (closed loop) and --request-rate (open loop) exclude each other")
	f.add(c.Concurrency == 0 && c.Arrival.Rate == 0 && c.Trace == nil, "--concurrency, --request-rate or --trace is missing; one of them says when requests are sent")
	if c.Arrival.Rate != 0 {
		if err := c.Arrival.Validate(); err != nil {
			f.add(true, "%s", strings.ReplaceAll(err.Error(), "--rate is", "--request-rate is"))
		}
	}
	f.add(!(c.Speedup > 0 && c.Speedup <= 1e6), "--speedup is %v; it must be above 0 and at most a million", c.Speedup)
	f.add(c.Requests < 0 || c.Requests > math.MaxInt32 || c.WarmUp < 0 || c.WarmUp > math.MaxInt32 || c.MaxErrors < 0, "--requests, --warmup-requests and --max-errors must not be negative, nor above %d", math.MaxInt32)
	f.add(c.Duration < 0 || c.RampUp < 0 || c.Grace < 0, "--duration, --ramp-up and --grace must not be negative")
	f.add(c.Requests == 0 && c.Duration == 0 && c.Trace == nil, "--requests or --duration is missing; one of them ends the run")
	f.add(c.Timeout <= 0, "--timeout is %v; it must be above 0", c.Timeout)
	f.add(!(c.CancelRate >= 0 && c.CancelRate <= 1), "--cancel-rate is %v; it must be within 0 and 1", c.CancelRate)
	f.add(c.CancelRate > 0 && c.CancelAfter <= 0, "--cancel-after is %v; it must be above 0", c.CancelAfter)
}

// members returns the names and the members of Extra, as they stand in an object.
func (c *Config) members() (names map[string]bool, list []byte) {
	names = map[string]bool{}
	if len(c.Extra) == 0 {
		return names, nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(c.Extra))
	if _, err := d.ReadToken(); err != nil {
		return names, nil // Validate has refused it
	}
	for d.PeekKind() == '"' {
		t, err := d.ReadToken()
		if err != nil {
			break
		}
		name := t.String()
		v, err := d.ReadValue()
		if err != nil && !errors.Is(err, io.EOF) {
			break
		}
		names[name] = true
		list, _ = jsontext.AppendQuote(list, name) // valid, as it was read
		list = append(append(append(list, ':'), v...), ',')
	}
	return names, list
}
