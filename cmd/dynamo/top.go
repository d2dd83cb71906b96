package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/term"

	"github.com/dynamo-go/dynamo/router"
)

// topCmd shows how a frontend's routers do, again and again.
type topCmd struct {
	endpointFlags
	Interval time.Duration `help:"Time between two readings." default:"1s" placeholder:"TIME" oneoff:""`
	Once     bool          `help:"Take two readings, print one frame as plain text and end; so also where the output is no terminal." oneoff:""`
}

const (
	// minInterval and maxInterval bound the time between two readings.
	minInterval, maxInterval = 100 * time.Millisecond, time.Minute
	// plainWidth is the width of a frame where no terminal has one.
	plainWidth = 140
)

// Run shows the routers until the user ends it.
func (c *topCmd) Run(a *app) error {
	if c.Interval < minInterval || c.Interval > maxInterval {
		return usageError{error: fmt.Errorf("--interval is %v; it must lie between %v and %v", c.Interval, minInterval, maxInterval)}
	}
	e, err := c.open()
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.Once || !isTerminal(a.stdout) || !isTerminal(a.stdin) {
		return c.once(ctx, a, e)
	}
	m := newTop(topConfig{
		base: e.base, interval: c.Interval, now: time.Now, paint: paint{on: true, colour: colourful(a.settings.env)},
		poll:    func() tea.Msg { return e.readRouters(ctx) },
		explain: func(id string) tea.Msg { return e.readExplain(ctx, id) },
	})
	// Signals are untilSignal's: they cancel ctx, which ends the program.
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.stdin), tea.WithOutput(a.stdout), tea.WithoutSignalHandler()).Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// once prints one frame: two readings make its rates.
func (c *topCmd) once(ctx context.Context, a *app, e *endpoint) error {
	m := newTop(topConfig{base: e.base, interval: c.Interval, now: time.Now})
	for n := range 2 {
		if n > 0 {
			select {
			case <-time.After(c.Interval):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		r := e.readRouters(ctx)
		if r.err != nil {
			return r.err
		}
		m.take(r)
	}
	wide := plainWidth
	if f, ok := a.stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			wide = w
		}
	}
	for i, s := range m.series {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		m.choose(s.key)
		for _, line := range m.frame(wide, 0) {
			if _, err := fmt.Fprintln(a.stdout, strings.TrimRight(line, " ")); err != nil {
				return err
			}
		}
	}
	if len(m.series) == 0 {
		_, err := fmt.Fprintf(a.stdout, "dynamo top  %s\n%s\n", e.base, noRouters)
		return err
	}
	return nil
}

// noRouters is said of a frontend without routers.
const noRouters = "no model of this frontend is served through a router; there is one for each model of a cluster's workers"

// colourful says whether the terminal is to be given colours.
func colourful(env func(string) (string, bool)) bool {
	no, _ := env("NO_COLOR")
	kind, _ := env("TERM")
	return no == "" && kind != "dumb"
}

// reading is what GET /v1/router said at a moment.
type reading struct {
	at      time.Time // by the clock of this process
	routers []router.State
	err     error
}

// readRouters asks for the routers' states.
func (e *endpoint) readRouters(ctx context.Context) reading {
	body, err := e.get(ctx, "/v1/router", maxRouterBytes)
	r := reading{at: time.Now(), err: err}
	var answer *answerError
	if errors.As(err, &answer) && answer.status == http.StatusNotFound {
		r.err = fmt.Errorf("%s has no /v1/router (%w): is it the address of a dynamo frontend?", e.base, err)
	}
	if err != nil {
		return r
	}
	var all struct {
		Routers []router.State `json:"routers"`
	}
	if err := json.Unmarshal(body, &all, jsontext.AllowInvalidUTF8(true)); err != nil {
		r.err = fmt.Errorf("understand the answer of %s: %s", e.base, printable(err.Error()))
		return r
	}
	r.routers = all.Routers
	return r
}

// explained is what GET /v1/requests/{id}/explain said.
type explained struct {
	id  string
	doc *explanation
	err error
}

// readExplain asks why a request went where it did.
func (e *endpoint) readExplain(ctx context.Context, id string) explained {
	body, err := e.explain(ctx, id)
	if err != nil {
		return explained{id: id, err: err}
	}
	doc, err := parseExplanation(body)
	return explained{id: id, doc: doc, err: err}
}
