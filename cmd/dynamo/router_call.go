package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/selection"
)

// maxMessageBytes bounds the JSON that is read; the service takes no more either.
const maxMessageBytes = 16 << 20

// routerCallCmd calls a router: the same methods over rpc and HTTP.
type routerCallCmd struct {
	Method  string        `arg:"" help:"What to call: ${router_methods}."`
	Message string        `arg:"" optional:"" help:"The JSON object of the call. Without it, or as -: what is piped in."`
	Router  string        `help:"The router: HOST:PORT of its --rpc, or the http:// address of its HTTP." default:"127.0.0.1:8093" placeholder:"ADDRESS" oneoff:""`
	APIKey  string        `name:"api-key" help:"For a router over HTTP that wants one; better set in OPENAI_API_KEY." placeholder:"KEY" env:"OPENAI_API_KEY" oneoff:"" secret:""`
	Timeout time.Duration `help:"How long the answer may take; 0 as long as it takes." default:"30s" oneoff:""`
	clusterFlags
}

// Run prints the answer.
func (c *routerCallCmd) Run(a *app) error {
	if !slices.Contains(selection.Methods(), c.Method) {
		return usageError{error: fmt.Errorf("a router has no method %q; there are %s", c.Method, strings.Join(selection.Methods(), ", "))}
	}
	message, err := c.message(a)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	answer, err := c.ask(ctx, a, message)
	if err != nil {
		return refusedCall(err)
	}
	_, err = fmt.Fprintln(a.stdout, escaped(string(answer)))
	return err
}

// message is the JSON of the call.
func (c *routerCallCmd) message(a *app) ([]byte, error) {
	if c.Message != "" && c.Message != "-" {
		return []byte(c.Message), nil
	}
	if f, ok := a.stdin.(*os.File); ok && c.Message == "" && term.IsTerminal(int(f.Fd())) {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(a.stdin, maxMessageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	return b, nil
}

func (c *routerCallCmd) ask(ctx context.Context, a *app, message []byte) ([]byte, error) {
	if strings.Contains(c.Router, "://") {
		u, err := url.Parse(c.Router)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
			return nil, usageError{error: fmt.Errorf("--router: %q is no address such as http://127.0.0.1:8092", c.Router)}
		}
		return selection.NewHTTPClient(http.DefaultClient, c.Router, c.APIKey).Call(ctx, c.Method, message)
	}
	if _, _, err := net.SplitHostPort(c.Router); err != nil {
		return nil, usageError{error: fmt.Errorf("--router: %q is neither HOST:PORT nor an address such as http://127.0.0.1:8092", c.Router)}
	}
	v, err := a.cluster(&c.clusterFlags)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return v.AskRouter(ctx, c.Router, c.Method, message)
}

// refusedCall is the error of a call as a terminal shows it.
func refusedCall(err error) error {
	var e *dynamo.Error
	if !errors.As(err, &e) {
		return err
	}
	text := printable(err.Error())
	if e.Code != "" {
		text += " (" + printable(e.Code) + ")"
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf("; try again in %v", e.RetryAfter)
	}
	return errors.New(text)
}
