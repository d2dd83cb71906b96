package frontend

import (
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"net/http"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// Who asks how a request was routed, or what the router knows, sends the same key as
// for any other route. Who has no tenant sees everything: that is everybody on a
// server without keys, and on one with keys those whose key names no tenant, the
// operator's. A tenant sees its own requests, and of others' not even that they are
// there; the router's state is not for tenants.
//
// A request has two names. Its id is made here, at random, so that no two requests
// anywhere share one, whatever their clients call them; it is what the system knows
// it by and what stands in the answer's id. The other is the x-request-id that its
// client may send, which means the tenant's last request of that name.

// asked remembers, of as many of the last requests as may be explained, by which
// names which tenant may ask for them.
type asked struct {
	most int
	seed maphash.Seed
	mu   struct {
		sync.Mutex
		ring  []askedOne
		next  int // the oldest, once the ring is full
		slots map[uint64]int
	}
}

// askedOne is a request: its id, and the hashes of the names it goes by; 0 is none.
type askedOne struct {
	id    [16]byte
	names [3]uint64
}

// newAsked returns an asked for the given number of requests.
func newAsked(most int) *asked {
	if most <= 0 {
		most = defaultAsked
	}
	a := &asked{most: min(most, maxAsked), seed: maphash.MakeSeed()}
	a.mu.slots = map[uint64]int{}
	return a
}

// hash is that of a name in the mouth of a tenant; never 0.
func (a *asked) hash(tenant, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(a.seed)
	_, _ = h.WriteString(tenant) // a hash takes everything
	_ = h.WriteByte(0)
	_, _ = h.WriteString(name)
	return max(h.Sum64(), 1)
}

// remember takes in a request with the given id of 32 hexadecimal digits; name is
// its client's own, if it has one.
func (a *asked) remember(id, tenant, name string) {
	if a == nil || tenant == "" && name == "" {
		return // who may see it may see everything, by its id
	}
	var one askedOne
	if _, err := hex.Decode(one.id[:], []byte(id)); err != nil {
		panic("BUG: a request's id is not hexadecimal: " + id)
	}
	if name != "" {
		one.names[0] = a.hash("", name)
	}
	if tenant != "" {
		one.names[1] = a.hash(tenant, id)
		if name != "" {
			one.names[2] = a.hash(tenant, name)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	slot := len(a.mu.ring)
	if slot < a.most {
		a.mu.ring = append(a.mu.ring, one)
	} else {
		slot = a.mu.next
		a.mu.next = (slot + 1) % a.most
		for _, h := range a.mu.ring[slot].names {
			if a.mu.slots[h] == slot {
				delete(a.mu.slots, h) // else a later request has the name
			}
		}
		a.mu.ring[slot] = one
	}
	for _, h := range one.names {
		if h != 0 {
			a.mu.slots[h] = slot
		}
	}
}

// find returns the id of the request that a tenant calls name: its client's own name
// for it, its id, or its answer's id. It may name one of several prompts or choices.
func (a *asked) find(tenant, name string) (id dynamo.RequestID, ok bool) {
	if id, ok := a.named(tenant, name); ok {
		return id, true
	}
	for _, prefix := range []string{"chatcmpl-", "cmpl-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	if tenant == "" {
		return dynamo.RequestID(name), true
	}
	if len(name) < idDigits {
		return "", false
	}
	_, own := a.named(tenant, name[:idDigits])
	return dynamo.RequestID(name), own
}

func (a *asked) named(tenant, name string) (dynamo.RequestID, bool) {
	h := a.hash(tenant, name)
	a.mu.Lock()
	defer a.mu.Unlock()
	slot, ok := a.mu.slots[h]
	if !ok {
		return "", false
	}
	return dynamo.RequestID(hex.EncodeToString(a.mu.ring[slot].id[:])), true
}

// serveExplain is GET /v1/requests/{id}/explain.
func (s *Server) serveExplain(w http.ResponseWriter, r *http.Request) {
	tenant, ok := s.caller(w, r)
	if !ok {
		return
	}
	name := r.PathValue("id")
	if id, ok := s.asked.find(tenant, name); ok {
		if why, ok := s.config.Explain(id); ok {
			s.answerValue(w, r, why)
			return
		}
	}
	kept := "the last decisions"
	if n := s.config.ExplainKept; n > 0 {
		kept = fmt.Sprintf("the last %d decisions", n)
	}
	s.refuse(w, r, http.StatusNotFound, &dynamo.Error{
		Kind: dynamo.KindNotFound, Param: "id", Code: "unknown_request",
		Message: fmt.Sprintf("there is no decision about a request %q of yours: %s are kept, each at the frontend that made it; ask by the request's x-request-id or by its answer's id", clip(name), kept),
	})
}

// toOperator answers with what value returns, to those who have no tenant: it is about
// all tenants' work.
func (s *Server) toOperator(value func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tenant, ok := s.caller(w, r)
		switch {
		case !ok:
		case tenant != "":
			s.refuse(w, r, http.StatusForbidden, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "operator_only", Message: "the router's state shows all tenants' work; it is for keys that name no tenant (--api-key)"})
		default:
			s.answerValue(w, r, value())
		}
	}
}

// answerValue answers with v as JSON.
func (s *Server) answerValue(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		s.log.Error("an answer is not JSON", "path", r.URL.Path, obs.KeyError, err)
		status, e := publicError(err)
		s.refuse(w, r, status, e)
		return
	}
	s.answer(w, r, http.StatusOK, body)
}
