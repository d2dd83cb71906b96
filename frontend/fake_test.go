package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// The test vocabulary: a token for each byte, with the byte's value as its id, and
// three special tokens.
const (
	imStart dynamo.TokenID = 256 + iota
	imEnd
	bos
	testVocab
)

// byteTokenizer makes the test tokenizer.
func byteTokenizer(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	vocab := map[string]int{}
	next := rune(256) // GPT-2's alphabet: printable bytes stand for themselves
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r = next
			next++
		}
		vocab[string(r)] = b
	}
	type added struct {
		ID         int    `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		Lstrip     bool   `json:"lstrip"`
		Rstrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	}
	special := []added{
		{ID: int(imStart), Content: "<|im_start|>", Special: true}, {ID: int(imEnd), Content: "<|im_end|>", Special: true},
		{ID: int(bos), Content: "<s>", Special: true},
	}
	file := map[string]any{
		"version": "1.0", "added_tokens": special,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
		"decoder":       map[string]any{"type": "ByteLevel"},
		"model":         map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{}},
	}
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

const chatML = `{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

// fake is an engine whose answer is a function of the request. With N chunks in
// hand it behaves as the law of engine.Engine wants.
type fake struct {
	// answer returns the chunks of a choice but for usage; the last must have
	// Finish.
	answer func(r *dynamo.Request) []dynamo.Chunk
	// before runs before chunk i of a choice is yielded; an error ends it.
	before func(ctx context.Context, r *dynamo.Request, i int) error

	mu struct {
		sync.Mutex
		asked   []dynamo.Request
		running int
		yielded int
	}
}

// Generate implements engine.Engine.
func (f *fake) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		f.mu.Lock()
		f.mu.asked = append(f.mu.asked, *r)
		f.mu.running++
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			f.mu.running--
			f.mu.Unlock()
		}()
		for i, c := range f.answer(r) {
			if f.before != nil {
				if err := f.before(ctx, r, i); err != nil {
					yield(dynamo.Chunk{}, err)
					return
				}
			}
			if ctx.Err() != nil {
				yield(dynamo.Chunk{}, engine.ContextError(ctx))
				return
			}
			f.mu.Lock()
			f.mu.yielded++
			f.mu.Unlock()
			c.Choice = r.Choice
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (f *fake) requests() []dynamo.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]dynamo.Request(nil), f.mu.asked...)
}

func (f *fake) counts() (running, yielded int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.running, f.mu.yielded
}

// says answers with text, a token (a byte) per chunk, then ends with a stop id,
// or at MaxTokens.
func says(text string) func(*dynamo.Request) []dynamo.Chunk {
	return func(r *dynamo.Request) []dynamo.Chunk {
		var chunks []dynamo.Chunk
		for i, b := range []byte(text) {
			if i == r.MaxTokens {
				break
			}
			chunks = append(chunks, chunkOf(r, dynamo.TokenID(b)))
		}
		if len(chunks) == r.MaxTokens {
			chunks[len(chunks)-1].Finish = dynamo.FinishLength
		} else {
			end := chunkOf(r, imEnd)
			end.Finish = dynamo.FinishStop
			chunks = append(chunks, end)
		}
		chunks[0].Cached = min(4, len(r.Tokens))
		if r.Sampling.PromptLogprobs {
			for i, id := range r.Tokens {
				lp := dynamo.TokenLogprob{ID: id, Logprob: -float32(i) / 2}
				if i == 0 {
					lp.Logprob = float32(math.NaN())
				}
				chunks[0].PromptLogprobs = append(chunks[0].PromptLogprobs, lp)
			}
		}
		return chunks
	}
}

func chunkOf(r *dynamo.Request, id dynamo.TokenID) dynamo.Chunk {
	c := dynamo.Chunk{Tokens: []dynamo.TokenID{id}}
	if r.Sampling.Logprobs {
		lp := dynamo.TokenLogprob{ID: id, Logprob: -0.5}
		for k := range r.Sampling.TopLogprobs {
			lp.Top = append(lp.Top, dynamo.TopLogprob{ID: id + dynamo.TokenID(k), Logprob: -0.5 - float32(k)})
		}
		c.Logprobs = []dynamo.TokenLogprob{lp}
	}
	return c
}

// testModel is served as "org/m".
func testModel(t testing.TB, e engine.Engine) *Model {
	t.Helper()
	set, err := chat.NewSet(chatML)
	if err != nil {
		t.Fatal(err)
	}
	return &Model{
		Card: engine.Card{
			Model: "org/m", Engine: "fake", Revision: "0123456789abcdef", ContextLength: 1024, BlockSize: 16, VocabSize: int(testVocab),
			EOS: []dynamo.TokenID{imEnd}, MaxTopLogprobs: 5, PromptLogprobs: true, Sampling: true,
		},
		Engine: e, Tokenizer: byteTokenizer(t), Template: set, Created: time.Unix(7, 0),
	}
}

// client talks to a server under test.
type client struct {
	t      testing.TB
	url    string
	server *Server
	header http.Header
}

// serve runs a server with one model on a loopback port until the test ends.
func serve(t testing.TB, e engine.Engine, change func(*Config, *Model)) *client {
	t.Helper()
	c, m := DefaultConfig(), testModel(t, e)
	if change != nil {
		change(&c, m)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddModel(m); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := s.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return &client{t: t, url: "http://" + l.Addr().String(), server: s, header: http.Header{}}
}

// do sends a request and returns the answer with its whole body.
func (c *client) do(method, path, body string) (*http.Response, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header = c.header.Clone()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(got)
}

// answerBody is what tests look at of an answer or an event.
type answerBody struct {
	ID, Object, Model string
	Choices           []struct {
		Index   int
		Message struct{ Role, Content string }
		Delta   struct {
			Role    string
			Content *string
		}
		Text         string
		FinishReason string          `json:"finish_reason"`
		StopReason   json.RawMessage `json:"stop_reason"`
		Logprobs     json.RawMessage
		TokenIDs     []int `json:"token_ids"`
		PromptIDs    []int `json:"prompt_token_ids"`
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
		Details    struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
	PromptIDs []int `json:"prompt_token_ids"`
	Error     *struct{ Message, Type, Param, Code string }
}

// ask posts a body that must be answered with 200.
func (c *client) ask(path, body string) answerBody {
	c.t.Helper()
	resp, got := c.do("POST", path, body)
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s %.100s: status %d: %s", path, body, resp.StatusCode, got)
	}
	return parse(c.t, got)
}

func parse(t testing.TB, text string) answerBody {
	t.Helper()
	var a answerBody
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return a
}

// stream posts a body and returns the events before [DONE].
func (c *client) stream(path, body string) []answerBody {
	c.t.Helper()
	resp, got := c.do("POST", path, body)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		c.t.Fatalf("%s %.100s: status %d, %s: %s", path, body, resp.StatusCode, resp.Header.Get("Content-Type"), got)
	}
	var events []answerBody
	for r := openai.NewReader(bytes.NewReader([]byte(got)), 0); ; {
		e, err := r.Next()
		if err != nil {
			c.t.Fatalf("the stream has no [DONE]: %v: %s", err, got)
		}
		if e.Done() {
			return events
		}
		events = append(events, parse(c.t, string(e.Data)))
	}
}

// texts joins the text of the events by choice.
func texts(events []answerBody, n int) []string {
	all := make([]string, n)
	for _, e := range events {
		for _, ch := range e.Choices {
			if ch.Delta.Content != nil {
				all[ch.Index] += *ch.Delta.Content
			}
			all[ch.Index] += ch.Text
		}
	}
	return all
}

// chatBody is a chat request with further fields.
func chatBody(fields string) string {
	if fields != "" {
		fields += ","
	}
	return fmt.Sprintf(`{"model":"org/m",%s"messages":[{"role":"user","content":"hi"}]}`, fields)
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within ten seconds: %s", what)
		}
	}
}
