package selection

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
)

// method is one thing that the service does. HTTP and rpc are two ways to call it, and
// both go by this table, so that what is asked and answered cannot differ.
type method struct {
	// name is the rpc method's after rpcPrefix, and what `dynamo router call` takes.
	name string
	// verb and path are the HTTP route, and status that of its success. What stands
	// in the path and in the query are fields of the message.
	verb, path string
	status     int
	// full says that a message without a body is none.
	full bool
	call func(s *Server, ctx context.Context, m *message) (any, error)
}

// rpcPrefix keeps the methods apart from a worker's.
const rpcPrefix = "selection/"

// methods are all there are.
var methods = []method{
	{name: "select", verb: "POST", path: "/select", full: true, call: takes(requestFields, (*Server).pick)},
	{name: "select_and_reserve", verb: "POST", path: "/select_and_reserve", status: http.StatusCreated, full: true, call: takes(requestFields, (*Server).reserveAny)},
	{name: "reserve", verb: "POST", path: "/reservations", status: http.StatusCreated, full: true, call: takes(requestFields, (*Server).reserveAt)},
	{name: "prefill_complete", verb: "POST", path: "/reservations/{reservation_id}/prefill_complete", call: takes(prefillFields, (*Server).prefillDone)},
	{name: "output_block", verb: "POST", path: "/reservations/{reservation_id}/output_block", call: takes(growthFields, (*Server).grow)},
	{name: "release", verb: "DELETE", path: "/reservations/{reservation_id}", call: takes(releaseFields, (*Server).release)},
	{name: "workers", verb: "GET", path: "/workers", call: takes(nil, (*Server).listWorkers)},
	{name: "add_worker", verb: "POST", path: "/workers", status: http.StatusCreated, full: true, call: takes(additionFields, (*Server).addWorker)},
	{name: "remove_worker", verb: "DELETE", path: "/workers/{worker_id}", call: takes(removalFields, (*Server).removeWorker)},
	{name: "loads", verb: "GET", path: "/loads", call: takes(nil, (*Server).loads)},
	{name: "potential_loads", verb: "POST", path: "/potential_loads", full: true, call: takes(requestFields, (*Server).potentialLoads)},
	{name: "overlap_scores", verb: "POST", path: "/overlap_scores", full: true, call: takes(requestFields, (*Server).overlapScores)},
	{name: "state", verb: "GET", path: "/v1/router", call: takes(nil, (*Server).state)},
	{name: "explain", verb: "GET", path: "/v1/requests/{request_id}/explain", call: takes(explainFields, (*Server).explain)},
}

// nothing is the message of methods that need to be told nothing.
type nothing struct{}

// takes makes the function of a method from one of what its messages say.
func takes[T any](f fields[T], do func(*Server, context.Context, *T) (any, error)) func(*Server, context.Context, *message) (any, error) {
	return func(s *Server, ctx context.Context, m *message) (any, error) {
		q := new(T)
		if err := decode(m, f, q); err != nil {
			return nil, err
		}
		return do(s, ctx, q)
	}
}

// Methods lists the names that Client.Call takes.
func Methods() []string {
	names := make([]string, len(methods))
	for i := range methods {
		names[i] = methods[i].name
	}
	return names
}

// find returns the method of a name.
func find(name string) (*method, error) {
	i := slices.IndexFunc(methods, func(m method) bool { return m.name == name })
	if i < 0 {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Code: "unknown_method", Message: fmt.Sprintf("there is no method %q; there are %v", clip(name), Methods())}
	}
	return &methods[i], nil
}

// invoke calls a method for a client that may, and returns the answer's bytes.
func (s *Server) invoke(ctx context.Context, x *method, m *message) ([]byte, *dynamo.Error) {
	answer, err := s.perform(ctx, x, m)
	if err != nil {
		return nil, s.public(err)
	}
	return answer, nil
}

func (s *Server) perform(ctx context.Context, x *method, m *message) ([]byte, error) {
	switch {
	case len(m.body) > maxBodyBytes:
		return nil, errLarge
	case x.full && len(bytes.TrimSpace(m.body)) == 0:
		return nil, errShort
	}
	v, err := x.call(s, ctx, m)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, fmt.Errorf("write the answer: %w", err)
	}
	return b, nil
}
