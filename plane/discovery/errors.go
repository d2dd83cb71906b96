package discovery

import (
	"fmt"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// CodeTaken is the code of the error that refuses a worker id in use.
const CodeTaken = "worker_id_taken"

// Taken refuses to register want while holder lives; holder is nil if nothing is
// known of it.
func Taken(want Instance, holder *Instance) error {
	m := fmt.Sprintf("worker id %v is taken at %v", want.ID, want.Path)
	if holder != nil {
		m += fmt.Sprintf(" by a live worker at %s, started %s", strings.Join(holder.Addresses, " "), holder.Started.UTC().Format(time.RFC3339))
		if holder.Host != "" {
			m += " on host " + holder.Host
		}
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Code: CodeTaken, Message: m + "; choose another --worker-id, or stop that worker"}
}

// closedError is what the calls of a closed store or registration return.
func closedError(what string) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the " + what + " is closed"}
}

// movedError refuses an update that would be another instance.
func movedError() error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "an update must keep the instance's path, id and epoch; close the registration and register the other one"}
}
