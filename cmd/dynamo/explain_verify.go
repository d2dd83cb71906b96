package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/router/placement"
)

// maxFaultsShown is how many decisions that come out otherwise are printed; the rest is
// counted.
const maxFaultsShown = 10

// verify makes decisions once more from their records and prints for each model how many
// came out as they had: those for a request, or all that are kept if id is empty. It
// fails if one did not, or if there is none.
func (e *endpoint) verify(ctx context.Context, id string, out io.Writer) error {
	var body []byte
	var err error
	if id != "" {
		body, err = e.explain(ctx, id)
	} else {
		body, err = e.get(ctx, "/v1/router/records", maxRecordsBytes)
		var answer *answerError
		if errors.As(err, &answer) && answer.status == http.StatusNotFound {
			return fmt.Errorf("%s does not give its records: it is no frontend of this version; name a request to verify that one's", e.base)
		}
	}
	if err != nil {
		return err
	}
	return verify(body, out)
}

// recorded are the decisions for a model: those of all requests or, with Attempts, of
// one.
type recorded struct {
	Model    string   `json:"model"`
	Records  [][]byte `json:"records"`
	Attempts []struct {
		Record []byte `json:"record"`
	} `json:"attempts"`
}

// verify makes the decisions of an answer of /v1/router/records, or of an explanation,
// once more.
func verify(body []byte, out io.Writer) error {
	var doc struct {
		recorded
		Routers []recorded `json:"routers"`
	}
	if err := json.Unmarshal(body, &doc, jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("understand the records: %s", printable(err.Error()))
	}
	for _, a := range doc.Attempts {
		doc.Records = append(doc.Records, a.Record)
	}
	if len(doc.Records) > 0 {
		doc.Routers = append(doc.Routers, doc.recorded)
	}
	all, wrong := 0, 0
	for i := range doc.Routers {
		r := &doc.Routers[i]
		bad := 0
		for n, b := range r.Records {
			err := decideAgain(b)
			if err == nil {
				continue
			}
			if bad++; wrong+bad <= maxFaultsShown {
				fmt.Fprintf(out, "decision %d of model %s: %s\n", n+1, orDash(r.Model), printable(err.Error()))
			}
		}
		all, wrong = all+len(r.Records), wrong+bad
		if _, err := fmt.Fprintf(out, "model %s: %d of %d decisions come out the same\n", orDash(r.Model), len(r.Records)-bad, len(r.Records)); err != nil {
			return err
		}
	}
	switch {
	case all == 0:
		return errors.New("there is no decision to verify; send a request first")
	case wrong > 0:
		return fmt.Errorf("%d of %d decisions come out otherwise; a frontend of another version may have recorded them, else report this with the output of 'dynamo explain ID --json'", wrong, all)
	}
	return nil
}

// decideAgain makes the decision of a record once more, and returns how it differs.
func decideAgain(b []byte) error {
	r, err := placement.ParseRecord(b)
	if err != nil {
		return err
	}
	want := placement.None
	if r.Outcome == placement.Fit {
		want = 0
	}
	switch got := r.Again(); {
	case got == want:
		return nil
	case got == placement.None:
		return fmt.Errorf("%v won, and nobody does again", r.Best[want].Worker)
	case want == placement.None:
		return fmt.Errorf("nobody won (%v), and %v does again", r.Outcome, r.Best[got].Worker)
	default:
		return fmt.Errorf("%v won, and %v does again", r.Best[want].Worker, r.Best[got].Worker)
	}
}
