package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
)

// KV from elsewhere that a worker may have taken before it was lost is offered to no
// other; a worker that has refused has not touched it.
func TestHandoverOffered(t *testing.T) {
	for code, want := range map[string][]string{
		engine.CodeLost:     {"where", ""},
		engine.CodeRefused:  {"where", "where"},
		engine.CodeDraining: {"where", "where"},
	} {
		r := open(t, defaults)
		var offered []string
		worker := func() *scripted {
			return &scripted{do: func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				if offered = append(offered, string(q.Handover)); len(offered) == 1 {
					fails(code).do(ctx, q, yield)
					return
				}
				answer(ctx, q, yield)
			}}
		}
		add(t, r, 1, worker(), 0, 0)
		add(t, r, 2, worker(), 0, 0)
		q := request("r")
		q.Handover = []byte("where")
		if _, err := enginetest.Collect(t.Context(), r, q); err != nil || fmt.Sprint(offered) != fmt.Sprint(want) {
			t.Errorf("%s: the KV was offered as %q, %v; want %q", code, offered, err, want)
		}
		if string(q.Handover) != "where" {
			t.Error("the request was changed")
		}
		r.Close()
	}
}
