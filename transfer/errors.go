package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// Codes of errors, beneath their kind.
const (
	// CodeFenced: the remote range is not, or not any more, open to this transfer:
	// its lease was acknowledged, revoked or has expired.
	CodeFenced = "transfer_fenced"
	// CodeMemory: the memory is not registered, or not any more.
	CodeMemory = "transfer_memory"
	// CodeContent: the peer's bytes are of another model or layout.
	CodeContent = "transfer_content"
	// CodeVersion: the peer's metadata or protocol is of another version.
	CodeVersion = "transfer_version"
	// CodeKey: the peer, or its metadata, does not know the cluster key.
	CodeKey = "transfer_key"
	// CodeIdentity: another agent, or another life of it, answers.
	CodeIdentity = "transfer_identity"
	// CodeLost: the peer is gone or cannot be reached.
	CodeLost = "transfer_peer_lost"
	// CodeChecksum: the bytes that arrived are not those that were sent.
	CodeChecksum = "transfer_checksum"
	// CodeMedium: a file or a store of objects failed.
	CodeMedium = "transfer_medium"
)

func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}

func coded(k dynamo.Kind, code, format string, args ...any) error {
	return &dynamo.Error{Kind: k, Code: code, Message: fmt.Sprintf(format, args...)}
}

// lost is the failure of a path, after which another may be tried.
func lost(err error, format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: CodeLost, Message: fmt.Sprintf(format, args...), Err: err}
}

// another reports whether a transfer that failed so may go by another path.
func another(err error) bool { return dynamo.KindOf(err) == dynamo.KindUnavailable }

// codeOf returns the code of err, or nothing.
func codeOf(err error) string {
	var e *dynamo.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// ended says why ctx has ended, in words of this package.
func ended(ctx context.Context) error {
	err := context.Cause(ctx)
	var e *dynamo.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return errLate
	}
	return errCancelled
}

var errCancelled = &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the transfer was cancelled"}

var errLate = &dynamo.Error{Kind: dynamo.KindDeadline, Message: "the transfer was not done by its deadline", Err: context.DeadlineExceeded}

var errStopped = &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the agent is not running; call Run, and post while it runs"}
