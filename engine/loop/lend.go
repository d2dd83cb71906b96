package loop

import (
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// lend keeps for another engine what KV there is of q, which is t's. The answer ends at
// once if there is none.
func (l *loop) lend(t *Task, q *sched.Request, now time.Time) {
	lent := 0
	for _, o := range l.live {
		if o.Request.Lend {
			lent++
		}
	}
	t.reason = dynamo.FinishLength // there is nothing more to it
	if lent >= maxLends || l.e.config.Handover == nil {
		t.finish(t.reason)
		return
	}
	q.Hold, q.MaxTokens = l.hold(), len(q.Resumed)+1
	t.keeps, t.tiers = true, true
	l.live[t.id] = t
	actions, err := l.s.Lend(*q, now)
	if len(actions) > 0 {
		l.handle(actions)
		return
	}
	delete(l.live, t.id)
	if err != nil {
		t.fail(err)
	} else {
		t.finish(t.reason)
	}
}
