package router_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/router"
)

// line asks a router in the background and notes in which order answers come.
type line struct {
	t     *testing.T
	r     *router.Router
	all   sync.WaitGroup
	mu    sync.Mutex
	order []string
	errs  map[string]error
}

func (l *line) ask(id string, change func(*dynamo.Request)) {
	q := request(id)
	q.Routing = &dynamo.Routing{}
	change(q)
	l.all.Go(func() {
		_, err := enginetest.Collect(l.t.Context(), l.r, q)
		l.mu.Lock()
		defer l.mu.Unlock()
		if err == nil {
			l.order = append(l.order, id)
			return
		}
		if l.errs == nil {
			l.errs = map[string]error{}
		}
		l.errs[id] = err
	})
	synctest.Wait()
}

func tenant(name string) func(*dynamo.Request) {
	return func(q *dynamo.Request) { q.Routing.Tenant, q.Tokens = name, text(1, 5000) }
}

// A tenant that floods waits for itself; another one's requests do not wait for all of
// it.
func TestFairAmongTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, func(c *router.Config) { c.Wait = time.Hour })
		add(t, r, 1, takes(time.Second), 1, 0)
		l := &line{t: t, r: r}
		for i := range 20 {
			l.ask(fmt.Sprint("a", i), tenant("a"))
		}
		l.ask("b0", tenant("b"))
		l.ask("b1", tenant("b"))
		l.all.Wait()
		place := map[string]int{}
		for i, id := range l.order {
			place[id] = i
		}
		if len(l.order) != 22 || place["b0"] > 3 && place["b1"] > 5 {
			t.Errorf("got %v", l.order)
		}
		for i := range 19 {
			if place[fmt.Sprint("a", i)] > place[fmt.Sprint("a", i+1)] {
				t.Errorf("requests of one tenant changed their order: %v", l.order)
			}
		}
		idle(t, r)
	})
}

// Higher tiers, then higher priorities, then nearer deadlines go first; who comes too
// late is told so.
func TestOrderOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, func(c *router.Config) { c.Wait = time.Hour })
		add(t, r, 1, takes(time.Second), 1, 0)
		l := &line{t: t, r: r}
		l.ask("running", func(*dynamo.Request) {})
		l.ask("late", func(*dynamo.Request) {})
		l.ask("soon", func(q *dynamo.Request) { q.Deadline = time.Now().Add(30 * time.Second) })
		l.ask("urgent", func(q *dynamo.Request) { q.Priority = 5 })
		l.ask("first", func(q *dynamo.Request) { q.Routing.StrictPriority = 1 })
		l.ask("too late", func(q *dynamo.Request) { q.Deadline, q.Priority = time.Now().Add(1500*time.Millisecond), -1 })
		l.all.Wait()
		if got, want := strings.Join(l.order, " "), "running first urgent soon late"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if dynamo.KindOf(l.errs["too late"]) != dynamo.KindDeadline {
			t.Errorf("past its deadline: got %v", l.errs["too late"])
		}
		idle(t, r)
	})
}

// Where the queue is full, the answer says when it will have drained.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, func(c *router.Config) { c.Wait, c.Queue = time.Hour, 10 })
		add(t, r, 1, takes(2*time.Second), 1, 0)
		l := &line{t: t, r: r}
		for i := range 6 {
			l.ask(fmt.Sprint("early", i), func(*dynamo.Request) {})
		}
		time.Sleep(9 * time.Second)
		for i := range 12 {
			l.ask(fmt.Sprint("r", i), func(*dynamo.Request) {})
		}
		l.all.Wait()
		var told time.Duration
		for _, err := range l.errs {
			var e *dynamo.Error
			if !errors.As(err, &e) || e.Code != "queue_full" {
				t.Fatalf("got %v", err)
			}
			told = max(told, e.RetryAfter)
		}
		if told < 10*time.Second || told > 40*time.Second {
			t.Errorf("10 requests of 2 s wait, and one is told to come again after %v", told)
		}
		idle(t, r)
	})
}
