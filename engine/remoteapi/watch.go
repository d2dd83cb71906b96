package remoteapi

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// watch ends a request whose server sends nothing for too long. It runs only
// while the server is waited for.
type watch struct {
	timeout time.Duration
	timer   *time.Timer // nil without a timeout
	cancel  context.CancelCauseFunc
}

// newWatch returns a watch that is armed.
func newWatch(timeout time.Duration, cancel context.CancelCauseFunc) *watch {
	w := &watch{cancel: cancel}
	w.limit(timeout)
	return w
}

// limit sets another timeout, from now on.
func (w *watch) limit(timeout time.Duration) {
	w.disarm()
	w.timeout, w.timer = timeout, nil
	if timeout > 0 {
		w.timer = time.AfterFunc(timeout, func() {
			w.cancel(&dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeStalled, Message: fmt.Sprintf("the model's server sent nothing for %v (--engine-timeout)", timeout)})
		})
	}
}

func (w *watch) arm() {
	if w.timer != nil {
		w.timer.Reset(w.timeout)
	}
}

func (w *watch) disarm() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// watched arms a watch for each read.
type watched struct {
	io.ReadCloser
	watch *watch
}

// Read implements io.Reader.
func (r *watched) Read(p []byte) (int, error) {
	r.watch.arm()
	n, err := r.ReadCloser.Read(p)
	r.watch.disarm()
	return n, err
}
