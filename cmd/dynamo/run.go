package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/openai"
)

// maxPromptBytes bounds a prompt read from stdin.
const maxPromptBytes = 16 << 20

type runCmd struct {
	Model  string   `arg:"" help:"Alias (smollm2), Hugging Face id, model folder or .gguf file."`
	Prompt []string `arg:"" optional:"" help:"The question. Without it: what is piped in, or a chat in the terminal."`

	System      string   `help:"System message." placeholder:"TEXT"`
	MaxTokens   int      `help:"Longest answer, in tokens. 0: what the context leaves." default:"0" placeholder:"TOKENS"`
	Temperature *float64 `help:"Randomness: 0 always takes the likeliest token." placeholder:"T"`
	TopP        *float64 `name:"top-p" help:"Draw from the likeliest tokens that together reach this probability." placeholder:"P"`
	Seed        *int64   `help:"Makes a random answer repeatable." placeholder:"N"`

	engineFlags
}

// Run answers once or chats.
func (c *runCmd) Run(a *app) error {
	log, err := a.logger("error,frontend=off")
	if err != nil {
		return err
	}
	prompt, chat, err := c.prompt(a)
	if err != nil {
		return err
	}
	view := newConsole(a.stderr)
	defer view.end()
	h, err := a.hub(log, view.hub)
	if err != nil {
		return err
	}
	cfg := node.DefaultConfig()
	c.engineFlags.apply(&cfg)
	cfg.Version, cfg.Logger, cfg.Progress = buildInfo().Version, log, view.step
	if err := cfg.Validate(); err != nil {
		return asUsage(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	keys := watchKeys(cancel)
	defer keys.stop()
	s, err := c.start(ctx, h, cfg)
	if err != nil {
		return err
	}
	view.end()
	t := &talk{cmd: c, app: a, keys: keys, session: s}
	if chat {
		err = t.chat(ctx)
	} else {
		err = t.once(ctx, prompt)
	}
	return errors.Join(err, s.stop())
}

// prompt decides what is asked: the arguments, what is piped in, or a chat.
func (c *runCmd) prompt(a *app) (prompt string, chat bool, err error) {
	if len(c.Prompt) > 0 {
		return strings.Join(c.Prompt, " "), false, nil
	}
	if isTerminal(a.stdin) {
		return "", true, nil
	}
	b, err := io.ReadAll(io.LimitReader(a.stdin, maxPromptBytes+1))
	if err != nil {
		return "", false, fmt.Errorf("read the prompt from stdin: %w", err)
	}
	if len(b) > maxPromptBytes {
		return "", false, fmt.Errorf("the prompt on stdin is longer than %s", mib(maxPromptBytes))
	}
	prompt = strings.TrimSpace(string(b))
	if prompt == "" {
		return "", false, usageError{error: errors.New("stdin holds no prompt; give one as an argument, pipe one in, or run this in a terminal to chat")}
	}
	return prompt, false, nil
}

// message is one turn of a chat.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// question is the request body.
type question struct {
	Model       string    `json:"model"`
	Messages    []message `json:"messages"`
	Stream      bool      `json:"stream"`
	MaxTokens   int       `json:"max_tokens,omitzero"`
	Temperature *float64  `json:"temperature,omitzero"`
	TopP        *float64  `json:"top_p,omitzero"`
	Seed        *int64    `json:"seed,omitzero"`
}

// talk is one conversation.
type talk struct {
	cmd     *runCmd
	app     *app
	keys    *keys
	session *session
	history []message
}

// once asks one question.
func (t *talk) once(ctx context.Context, prompt string) error {
	t.begin()
	ctx, done := t.keys.answering(ctx)
	defer done()
	_, err := t.ask(ctx, prompt)
	if err == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (t *talk) begin() {
	t.history = nil
	if t.cmd.System != "" {
		t.history = []message{{"system", t.cmd.System}}
	}
}

// chat reads questions until the user ends it.
func (t *talk) chat(ctx context.Context) error {
	t.begin()
	fmt.Fprintf(t.app.stdout, "chatting with %s: /new begins again, /bye or Ctrl-D ends, Ctrl-C stops an answer\n", t.session.model)
	lines := readLines(t.app.stdin)
	for {
		fmt.Fprint(t.app.stdout, "> ")
		var line string
		var open bool
		select {
		case line, open = <-lines:
		case <-ctx.Done():
			fmt.Fprintln(t.app.stdout)
			return nil // Ctrl-C twice is one of the ways to end
		}
		switch line = strings.TrimSpace(line); {
		case !open:
			fmt.Fprintln(t.app.stdout)
			return nil
		case line == "":
			continue
		case line == "/bye" || line == "/exit" || line == "/quit":
			return nil
		case line == "/new" || line == "/clear":
			t.begin()
			continue
		}
		one, done := t.keys.answering(ctx)
		_, err := t.ask(one, line)
		done()
		if err != nil && dynamo.KindOf(err) != dynamo.KindInvalid {
			return err
		}
		if err != nil {
			fmt.Fprintf(t.app.stderr, "dynamo: %v\n", err)
		}
	}
}

// readLines hands over stdin line by line; its goroutine ends with stdin, or
// with the process.
func readLines(r io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	return lines
}

// ask sends the history and the question and prints the answer as it comes. An
// answer that the user stopped stays in the history as far as it came.
func (t *talk) ask(ctx context.Context, content string) (string, error) {
	asked := append(t.history, message{"user", content})
	body, err := json.Marshal(question{
		Model: t.session.model, Messages: asked, Stream: true,
		MaxTokens: t.cmd.MaxTokens, Temperature: t.cmd.Temperature, TopP: t.cmd.TopP, Seed: t.cmd.Seed,
	})
	if err != nil {
		return "", fmt.Errorf("write the question: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("write the question: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := t.stream(req)
	fmt.Fprintln(t.app.stdout)
	if ctx.Err() != nil {
		err = nil // stopped by the user
	}
	if err == nil {
		t.history = append(asked, message{"assistant", answer})
	}
	return answer, err
}

// event is the part of a streamed answer that is printed.
type event struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// stream prints an answer as it comes and returns what has come of it.
func (t *talk) stream(req *http.Request) (string, error) {
	resp, err := t.session.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the model: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", refusal(resp)
	}
	var answer strings.Builder
	for events := openai.NewReader(resp.Body, 0); ; {
		e, err := events.Next()
		if err == io.EOF {
			return answer.String(), errors.New("the answer was cut off")
		}
		if err != nil {
			return answer.String(), fmt.Errorf("read the answer: %w", err)
		}
		if e.Done() {
			return answer.String(), nil
		}
		var v event
		if err := json.Unmarshal(e.Data, &v); err != nil {
			return answer.String(), fmt.Errorf("read the answer: %w", err)
		}
		if v.Error != nil {
			return answer.String(), errors.New(v.Error.Message)
		}
		for _, c := range v.Choices {
			answer.WriteString(c.Delta.Content)
			if _, err := io.WriteString(t.app.stdout, c.Delta.Content); err != nil {
				return answer.String(), fmt.Errorf("print the answer: %w", err)
			}
		}
	}
}

// refusal reads the body of an answer that is an error.
func refusal(resp *http.Response) error {
	var v event
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPromptBytes))
	if err != nil || json.Unmarshal(b, &v) != nil || v.Error == nil {
		return fmt.Errorf("the model's server answers %s", resp.Status)
	}
	kind := dynamo.KindInternal
	if resp.StatusCode == http.StatusBadRequest {
		kind = dynamo.KindInvalid
	}
	return &dynamo.Error{Kind: kind, Message: v.Error.Message}
}
