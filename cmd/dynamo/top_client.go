package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	// maxRouterBytes and maxExplainBytes bound the answers that are read; a longer
	// one is refused.
	maxRouterBytes  = 32 << 20
	maxExplainBytes = 4 << 20
	// maxRecordsBytes bounds the records of all routers: some 1.8 MB a router.
	maxRecordsBytes = 128 << 20
	// answerWait is how long an answer may take.
	answerWait = 3 * time.Second
)

// endpointFlags say which frontend is asked.
type endpointFlags struct {
	URL    string `name:"url" help:"Base address of the frontend." placeholder:"URL" default:"http://127.0.0.1:8000" oneoff:""`
	APIKey string `name:"api-key" help:"Sent as a bearer token; better set in OPENAI_API_KEY: other users of this machine can read command lines." placeholder:"KEY" env:"OPENAI_API_KEY" oneoff:"" secret:""`
}

// endpoint asks a frontend about itself.
type endpoint struct {
	base   string // without a slash at its end
	key    string
	client *http.Client
}

// open returns the endpoint that the flags name; it asks nothing yet.
func (f *endpointFlags) open() (*endpoint, error) {
	base := f.URL
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	base = strings.TrimRight(base, "/")
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, usageError{error: fmt.Errorf("--url: %q is no address such as http://127.0.0.1:8000", f.URL)}
	}
	if strings.ContainsFunc(f.APIKey, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, usageError{error: errors.New("--api-key holds a control character; give the key alone, without a line break")}
	}
	return &endpoint{base: base, key: f.APIKey, client: &http.Client{Timeout: answerWait}}, nil
}

// get returns the body of a path's answer. A failure says what may be done; its
// text is fit for a terminal.
func (e *endpoint) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if e.key != "" {
		req.Header.Set("Authorization", "Bearer "+e.key)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // it names method and address again
			err = u.Err
		}
		return nil, fmt.Errorf("ask %s: %w", e.base, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", e.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &answerError{status: resp.StatusCode, message: complaint(body)}
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("the answer of %s is longer than %s", e.base, mib(limit))
	}
	return body, nil
}

// answerError is an answer other than 200 OK.
type answerError struct {
	status  int
	message string // the server's, fit for a terminal
}

// Error says what the server said.
func (e *answerError) Error() string {
	text := fmt.Sprintf("the server answers %d", e.status)
	if name := http.StatusText(e.status); name != "" {
		text += " " + name
	}
	if e.message != "" {
		text += ": " + e.message
	}
	if e.status == http.StatusUnauthorized {
		text += "; give a key with --api-key or OPENAI_API_KEY"
	}
	return text
}

// complaint is what the body of a failure says.
func complaint(body []byte) string {
	var answer struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Error.Message != "" {
		return printable(answer.Error.Message)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return cut(printable(line), 200)
}
