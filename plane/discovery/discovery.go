package discovery

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Path names what an instance offers. In a watch an empty tail stands for
// everything below: Path{Namespace: "dynamo"} is all of a namespace, Path{} all
// there is.
type Path struct {
	Namespace, Component, Endpoint string
}

// String prints the path with slashes.
func (p Path) String() string {
	switch {
	case p.Component == "":
		return p.Namespace
	case p.Endpoint == "":
		return p.Namespace + "/" + p.Component
	}
	return p.Namespace + "/" + p.Component + "/" + p.Endpoint
}

// Covers reports whether a watch of p shows what is registered at q.
func (p Path) Covers(q Path) bool {
	return (p.Namespace == "" || p.Namespace == q.Namespace) &&
		(p.Component == "" || p.Component == q.Component) &&
		(p.Endpoint == "" || p.Endpoint == q.Endpoint)
}

// Artifact is a file that a worker serves by its digest.
type Artifact struct {
	// Name says in which form the bytes are ("tokenizer.json").
	Name string `json:"name,omitzero"`
	// Digest is the SHA-256 of the bytes in hexadecimal; empty: there is none.
	Digest string `json:"digest,omitzero"`
	// Bytes is the size.
	Bytes int64 `json:"bytes,omitzero"`
}

// Sampling is what a model's makers advise where a request says nothing; nil is
// no advice.
type Sampling struct {
	Temperature       *float64 `json:"temperature,omitzero"`
	TopP              *float64 `json:"top_p,omitzero"`
	MinP              *float64 `json:"min_p,omitzero"`
	RepetitionPenalty *float64 `json:"repetition_penalty,omitzero"`
	TopK              *int     `json:"top_k,omitzero"`
}

// Card tells the cluster of a model as one worker serves it.
type Card struct {
	engine.Card
	// Format is the version of the card's form, CardFormat.
	Format int
	// Tokenizer and Template are served by the worker over rpc.
	Tokenizer, Template Artifact
	// Weights is what the operator calls the weights (--weights-id): workers of one
	// model's name and one such name serve it together, whatever their engines.
	// Empty: only workers that are alike in everything serve together.
	Weights string
	// Vocabulary is the SHA-256, in hexadecimal, of what each id stands for; set with
	// Weights, whose workers may have read it from files of different forms.
	Vocabulary string
	// Special holds the special tokens that the template may name.
	Special map[string]string
	// Ranks is the number of data-parallel ranks.
	Ranks int
	// Labels say where the worker stands (zone, rack, host).
	Labels map[string]string
	// Capabilities are words for what the worker can do beyond the fields here.
	Capabilities []string
	// MaxRunning and MaxQueue are the worker's limits on requests, KVBlocks its
	// KV cache in blocks. StepTokens is the most tokens that a rank of it computes in
	// one step; 0 is unknown.
	MaxRunning, MaxQueue, KVBlocks, StepTokens int
	// Migration is how a request goes on elsewhere: "replay" or "refuse".
	Migration string
	Sampling  Sampling
}

// Instance is one life of a worker at one path. What a watch yields is shared
// with other watches and must not be changed.
type Instance struct {
	Path
	// ID names the worker and Epoch this life of it; later lives have larger
	// epochs. Neither is 0.
	ID    dynamo.WorkerID
	Epoch uint64
	// Addresses are "tcp://host:port" or "unix:///path", best first.
	Addresses []string
	// Host is the HostID of the worker: its Unix sockets are for this host only.
	Host string
	// Card is the model's; nil: the instance serves none.
	Card    *Card
	Started time.Time
	// Version is the program's.
	Version string
	// Draining: the worker finishes what it has and accepts nothing new.
	Draining bool
}

// Store is where instances are registered and found.
type Store interface {
	// Register makes the instance visible until the registration is closed or its
	// process dies; meanwhile it is kept alive, and registered again if the store
	// loses it. An id that is alive at the path is refused with CodeTaken. ctx
	// bounds the call only.
	Register(ctx context.Context, i Instance) (Registration, error)
	// Watch yields what is registered below p, and then what changes, until ctx
	// ends or the store is closed. It runs in the caller's goroutine, which must
	// come back for the next update in good time: changes are not queued but
	// summed up.
	Watch(ctx context.Context, p Path) iter.Seq[Update]
	// Close ends the watches and registrations made through this handle.
	Close() error
}

// Registration is a registered instance.
type Registration interface {
	// Update replaces what others see; path, id and epoch must stay. If the store
	// does not take it now, the error says so, and the change is published when
	// the store is back.
	Update(ctx context.Context, i Instance) error
	// Close deregisters. It may be called twice.
	Close() error
}

// Kind says what an Update is.
type Kind uint8

// The kinds of update.
const (
	Snapshot Kind = iota + 1 // Instances is the whole set
	Put                      // Instances are new or changed; with Problems it may be empty
	Delete                   // Instances are gone, each as it was seen last
	Stale                    // the store cannot be read; the last view stays in force
	Fresh                    // it can again; a Snapshot follows
)

// String returns the kind's name.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

var kindNames = [...]string{"none", "snapshot", "put", "delete", "stale", "fresh"}

// Update is one step of a watch.
type Update struct {
	Kind      Kind
	Instances []Instance
	// Problems are entries that were passed over, each reported once per watch.
	Problems []error
}

// Open opens the store that name says: "mem", "file" (in c.Dir) or "file:DIR".
// Backends with a package of their own are opened there.
func Open(name string, c Config) (Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch {
	case name == "mem":
		m := processMem.Handle()
		m.metrics = c.Metrics
		return m, nil
	case name == "file":
		if c.Dir == "" {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "--discovery-backend: file needs a directory and there is no run directory here; give --run-dir or file:DIR"}
		}
		return openFile(c.Dir, "--run-dir", c)
	case strings.HasPrefix(name, "file:") && len(name) > len("file:"):
		return openFile(strings.TrimPrefix(name, "file:"), "--discovery-backend", c)
	}
	return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--discovery-backend: %q is no store; there are mem, file, file:DIR, etcd and etcd://HOST:PORT", name)}
}
