package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Codes of errors that say why two peers do not connect. They reach
// PeerConfig.Changed, inside the error of the attempt.
const (
	// CodeVersion: the peers speak different versions of the protocol.
	CodeVersion = "peer_version"
	// CodeKey: the peers hold different cluster keys.
	CodeKey = "peer_key"
	// CodeIdentity: somebody else answers at the address.
	CodeIdentity = "peer_identity"
	// CodeCrowded: the server has too many connections or is closing.
	CodeCrowded = "peer_crowded"

	codeProtocol = "peer_protocol"
	codeGarbage  = "peer_garbage"
	codeSilent   = "peer_silent"
)

// remoteCause is the text of a cause on the other side.
type remoteCause string

// Error returns the text.
func (c remoteCause) Error() string { return string(c) }

// travelling returns what of err goes over the wire. An error without a kind of
// its own keeps its text as the cause, which is for logs.
func travelling(err error) *dynamo.Error {
	var e *dynamo.Error
	if errors.As(err, &e) {
		return e
	}
	e = &dynamo.Error{Kind: dynamo.KindOf(err), Err: err}
	switch e.Kind {
	case dynamo.KindCancelled:
		e.Message = "the request was cancelled"
	case dynamo.KindDeadline:
		e.Message = "the request's deadline passed"
	default:
		e.Message = "something went wrong in the worker; its log says more"
	}
	return e
}

// lostError is what streams of a lost connection end with. An io.EOF among its
// causes would pass for a stream that ended well.
func lostError(who string, cause error) error {
	if errors.Is(cause, io.EOF) {
		cause = io.ErrUnexpectedEOF
	}
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "the connection to " + who + " is lost; the request may go on at another worker", Err: cause}
}

// notConnected is what Open says of a peer without a connection.
func notConnected(who string) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "there is no connection to " + who + "; it is tried again, send the request elsewhere or later"}
}

// errClosing is what a closing server ends its streams with, and refuses others.
var errClosing = &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeDraining, Message: "the worker is shutting down; send the request elsewhere", RetryAfter: time.Second}

// errLeft is the cause of a connection that this side closed.
var errLeft = errors.New("this side closed the connection")

func silentError(d time.Duration) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: codeSilent, Message: fmt.Sprintf("the peer was silent for %v and is taken for dead", d.Round(time.Millisecond))}
}

func tooLarge(n, limit int) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("a message of %d bytes or more exceeds the limit of %d of its receiver", n, limit)}
}

// cancelled is the error of a stream that was given up for a cause.
func cancelled(cause error) error {
	var e *dynamo.Error
	if errors.As(cause, &e) {
		return cause
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return engine.DeadlineError(cause)
	}
	return &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the request was cancelled", Err: cause}
}

// code returns the code of err, if it has one.
func code(err error) string {
	var e *dynamo.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
