package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/term"
)

// explainCmd says why a request went where it did.
type explainCmd struct {
	Request string `arg:"" optional:"" help:"The request's x-request-id or the id of its answer; 'dynamo top' lists the last ones."`
	endpointFlags
	JSON   bool `name:"json" help:"Print the record as JSON." oneoff:""`
	Verify bool `help:"Make the decisions once more from their records, those for the request or, without one, all that the frontend keeps, and exit with 1 if one comes out otherwise." oneoff:""`
}

// Run prints the record of a request.
func (c *explainCmd) Run(a *app) error {
	id := strings.TrimSpace(c.Request)
	switch {
	case id == "" && !c.Verify:
		return usageError{error: errors.New("the request's id is empty; 'dynamo top' lists the last ones")}
	case c.Verify && c.JSON:
		return usageError{error: errors.New("--verify prints no JSON; leave --json out")}
	}
	e, err := c.open()
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.Verify {
		return e.verify(ctx, id, a.stdout)
	}
	body, err := e.explain(ctx, id)
	if err != nil {
		return err
	}
	if c.JSON {
		v := jsontext.Value(body)
		if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
			return fmt.Errorf("the answer of %s is no JSON: %s", e.base, printable(err.Error()))
		}
		_, err := fmt.Fprintln(a.stdout, escaped(string(v)))
		return err
	}
	doc, err := parseExplanation(body)
	if err != nil {
		return err
	}
	wide := 0
	if f, ok := a.stdout.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			wide = w
		}
	}
	for _, line := range doc.lines(wide) {
		if _, err := fmt.Fprintln(a.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// explain returns the record of a request as the frontend gives it.
func (e *endpoint) explain(ctx context.Context, id string) ([]byte, error) {
	body, err := e.get(ctx, "/v1/requests/"+url.PathEscape(id)+"/explain", maxExplainBytes)
	var answer *answerError
	if errors.As(err, &answer) && answer.status == http.StatusNotFound {
		why := answer.message
		if why == "" {
			why = "a frontend keeps those of its last requests only; ask the one that served it, by the request's x-request-id or the id of its answer"
		}
		return nil, fmt.Errorf("%s has no record of request %s: %s", e.base, cut(printable(id), 80), why)
	}
	return body, err
}

// escaped writes what a terminal could act on as JSON's escapes. In valid JSON such
// characters stand within strings only, where the escapes mean the same.
func escaped(s string) string {
	if !strings.ContainsFunc(s, actsOnTerminal) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !actsOnTerminal(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func actsOnTerminal(r rune) bool { return r != '\n' && r != ' ' && !unicode.IsPrint(r) }
