package hub

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
)

// diskError gives an error of the file system its kind: a full disk is
// something the user can act on.
func diskError(doing string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &dynamo.Error{Kind: dynamo.KindExhausted, Message: doing + ": the disk is full; free some space or set --cache-dir (DYN_CACHE_DIR) to another disk, and try again: what has come is kept", Err: err}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// sourcesFailed joins why each source of a model failed.
func sourcesFailed(ref string, failed []error) error {
	kind := dynamo.KindUnavailable
	for _, err := range failed {
		if dynamo.KindOf(err) == dynamo.KindCorrupt {
			kind = dynamo.KindCorrupt
		}
	}
	lines := make([]string, len(failed))
	for i, err := range failed {
		lines[i] = "\n  - " + strings.ReplaceAll(err.Error(), "\n", "\n    ")
	}
	return &dynamo.Error{Kind: kind, Message: fmt.Sprintf("model %s could not be fetched from any of its sources:%s\nwithout a network, give a .gguf file or a model folder instead", ref, strings.Join(lines, ""))}
}

// mismatch says that bytes are not those that were published. The caller has
// deleted them.
func mismatch(name, source, got, want string) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf(
		"%s from %s has %s, expected %s; the file was deleted: try again, and if it happens again something between here and the source alters it", name, source, got, want)}
}

// hostile says that a server sent a name that is not used.
func hostile(source, name string) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("%s lists a file called %q, which would lie outside the model's folder; nothing was fetched", source, name)}
}
