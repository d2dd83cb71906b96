package engine

import (
	"errors"

	"github.com/dynamo-go/dynamo"
)

// Codes of errors that say the worker failed, not the request.
const (
	// CodeLost: the connection to the worker is gone, or another process answers
	// at its address.
	CodeLost = "worker_lost"
	// CodeStalled: the worker's connection lives and nothing comes.
	CodeStalled = "worker_stalled"
	// CodeDraining: the worker leaves, and hands the request over or refuses it.
	CodeDraining = "worker_draining"
	// CodeRefused: the worker is full and refused before any work.
	CodeRefused = "worker_refused"
	// CodeNoWorker: there is nobody to send the request to.
	CodeNoWorker = "no_worker"
	// CodeReplaced: the name is served by other workers now, which answer otherwise.
	CodeReplaced = "model_replaced"
)

// Lost reports whether err says that the worker failed and the request may go on
// elsewhere, and by which code.
func Lost(err error) (code string, lost bool) {
	var e *dynamo.Error
	if !errors.As(err, &e) {
		return "", false
	}
	switch e.Code {
	case CodeLost, CodeStalled, CodeDraining, CodeRefused:
		return e.Code, true
	}
	return "", false
}
