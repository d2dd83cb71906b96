// Package hub finds, fetches, verifies and caches models. cmd and node ask it to
// turn what a user typed (an alias, a Hugging Face id, a directory, a .gguf
// file) into a path that the engine can open.
//
// It owns the model cache on disk, whose layout is
//
//	CacheDir/models/KEY/            a complete, verified model and its marker
//	CacheDir/models/KEY/model.json  the marker, written last: what was fetched, from where, sizes and digests
//	CacheDir/partial/KEY/           a download in progress, or one that was cut and can go on
//	CacheDir/locks/KEY              flock(2) held while KEY is fetched, verified or removed
//
// Laws:
//   - A folder under models/ appears by one rename, complete and verified: every
//     file's size and digest were compared with what its source published.
//   - Bytes are hashed when they are fetched, not at each start; a start
//     compares sizes and modification times with the marker.
//   - The access token goes to the configured endpoint's host alone, never along
//     a redirect to another host.
//   - A name that comes from a server is used as a file name only if it stays
//     inside the model's folder.
//   - Two processes that want the same model fetch it once.
package hub

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Hub resolves model references. It may be used by many goroutines at once.
type Hub struct {
	cfg     Config
	log     *slog.Logger
	aliases map[string]alias
	web     *client
	// openPart opens a file that a download writes to; tests replace it to
	// make the disk fail.
	openPart func(path string) (partFile, error)
	// freeBytes says how much a folder's file system can still take.
	freeBytes func(dir string) (int64, error)
}

// Sampling is advice on how to draw tokens; a zero field is no advice.
type Sampling struct {
	Temperature, TopP float64
}

// Model is a model that lies on this machine, ready to be opened.
type Model struct {
	// Ref is what the user asked for.
	Ref string `json:"ref"`
	// Name is the name the model is served under unless the user gives one: the
	// alias, org/name, or the base name of a local path.
	Name string `json:"name"`
	// Path is a .gguf file or a folder in Hugging Face layout.
	Path string `json:"-"`
	// Source says in words where the bytes came from.
	Source string `json:"source"`
	// Note tells what a user should know about the bytes, such as that they are
	// not the ones the alias names; empty for nothing.
	Note string `json:"note,omitempty"`
	// Digest is "sha256:" and the SHA-256 of the file in hexadecimal, or for
	// several files that of their names and digests; empty for local paths,
	// which are not hashed.
	Digest string `json:"digest,omitempty"`
	// Revision is the commit on the hub, where there is one.
	Revision string `json:"revision,omitempty"`
	// Sampling is what the publisher advises for a model that an alias names; zero
	// for nothing.
	Sampling Sampling `json:"-"`
	// SizeBytes is the size of all files together.
	SizeBytes int64 `json:"sizeBytes"`
	// Fetched is when the model was stored; zero for local paths.
	Fetched time.Time `json:"fetched,omitzero"`
	// Cached says that the model lies in the hub's cache, not at a path of the
	// user's own.
	Cached bool `json:"-"`
	// Files are the files of a cached model.
	Files []File `json:"files,omitempty"`
}

// File is one verified file of a cached model.
type File struct {
	// Name is the path inside the model's folder, with slashes.
	Name string `json:"name"`
	// SizeBytes and ModTime are what a start compares.
	SizeBytes int64     `json:"sizeBytes"`
	ModTime   time.Time `json:"modTime"`
	// SHA256 is what Verify compares, in hexadecimal.
	SHA256 string `json:"sha256"`
}

// New checks the configuration and returns a hub. It touches neither disk nor
// network.
func New(c Config) (*Hub, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	web, err := newClient(c.Endpoint, c.Token)
	if err != nil {
		return nil, err
	}
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: c, log: log, aliases: aliases, web: web, openPart: openPartFile, freeBytes: FreeBytes}, nil
}

// Resolve returns the model that ref names and fetches it if it is not here.
// KindNotFound: nobody has it; KindInvalid: ref is not a reference, or the token
// is refused; KindUnavailable: no source answers; KindExhausted: the disk is
// full; KindCorrupt: the bytes that came are not those that were published.
func (h *Hub) Resolve(ctx context.Context, ref string) (*Model, error) {
	r, err := h.parse(ref)
	if err != nil {
		return nil, err
	}
	switch r.kind {
	case refLocal:
		return local(ref, r.path)
	case refAlias:
		m, err := h.resolveAlias(ctx, r)
		if err != nil {
			return nil, err
		}
		m.Sampling = h.aliases[r.name].sampling
		return m, nil
	default:
		return h.resolveRepo(ctx, r)
	}
}

// Lookup returns the model that ref names if it lies on this machine, without
// fetching anything; KindNotFound says that it does not.
func (h *Hub) Lookup(ref string) (*Model, error) {
	r, err := h.parse(ref)
	if err != nil {
		return nil, err
	}
	if r.kind == refLocal {
		return local(ref, r.path)
	}
	if m, err := h.open(r.key()); err == nil {
		m.Ref, m.Name = ref, r.servedName()
		return m, nil
	}
	if a := h.aliases[r.name]; r.kind == refAlias && a.twin != "" {
		if m, err := h.open(reference{kind: refRepo, name: a.twin}.key()); err == nil {
			m.Ref, m.Name, m.Note = ref, r.name, a.twinNote()
			return m, nil
		}
	}
	return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("model %s is not in the cache %s; fetch it with: dynamo pull %s", ref, h.cfg.CacheDir, ref)}
}

// resolveAlias tries the sources of an alias in turn, then its twin.
func (h *Hub) resolveAlias(ctx context.Context, r reference) (*Model, error) {
	a := h.aliases[r.name]
	if m, err := h.Lookup(r.name); err == nil {
		return m, nil
	}
	var failed []error
	m, err := h.locked(ctx, r, func(ctx context.Context, stage string) (*Model, error) {
		for _, s := range a.sources {
			h.emit(Event{Kind: EventSource, Ref: r.name, Source: s.String(), Total: a.sizeBytes})
			m, err := h.fetchAlias(ctx, r, a, s, stage)
			if err == nil || ctx.Err() != nil || dynamo.KindOf(err) == dynamo.KindExhausted {
				return m, err
			}
			h.emit(Event{Kind: EventNote, Ref: r.name, Source: s.String(), Text: err.Error()})
			failed = append(failed, fmt.Errorf("%s: %w", s, err))
		}
		return nil, sourcesFailed(r.name, failed)
	})
	if err == nil || a.twin == "" || len(failed) == 0 {
		return m, err
	}
	note := a.twinNote()
	h.emit(Event{Kind: EventNote, Ref: r.name, Source: a.twin, Text: note})
	twin, twinErr := h.resolveRepo(ctx, reference{kind: refRepo, name: a.twin})
	if twinErr != nil {
		return nil, sourcesFailed(r.name, append(failed, fmt.Errorf("%s: %w", a.twin, twinErr)))
	}
	twin.Ref, twin.Name, twin.Note = r.name, r.name, note
	return twin, nil
}

// resolveRepo fetches from the Hugging Face hub.
func (h *Hub) resolveRepo(ctx context.Context, r reference) (*Model, error) {
	return h.locked(ctx, r, func(ctx context.Context, stage string) (*Model, error) {
		h.emit(Event{Kind: EventSource, Ref: r.String(), Source: h.cfg.Endpoint + "/" + r.name})
		return h.fetchRepo(ctx, r, stage)
	})
}

// locked returns the cached model of r, or lets fetch fill the stage folder
// under r's lock and moves it into its place.
func (h *Hub) locked(ctx context.Context, r reference, fetch func(ctx context.Context, stage string) (*Model, error)) (*Model, error) {
	key := r.key()
	named := func(m *Model) *Model {
		m.Ref, m.Name = r.String(), r.servedName()
		return m
	}
	if m, err := h.open(key); err == nil {
		return named(m), nil
	}
	release, err := h.lock(ctx, key, r.String())
	if err != nil {
		return nil, err
	}
	defer release()
	// Another process may have finished it while this one waited, and a model
	// whose files were touched since is kept if its bytes are still right.
	if m, err := h.openOrRepair(ctx, key); err == nil {
		return named(m), nil
	}
	stage := filepath.Join(h.cfg.CacheDir, "partial", key)
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return nil, diskError("make the download folder", err)
	}
	m, err := fetch(ctx, stage)
	if err != nil {
		_ = os.Remove(stage) // it stays if something came that can be gone on with
		return nil, err
	}
	if err := h.publish(key, stage, named(m)); err != nil {
		return nil, err
	}
	h.emit(Event{Kind: EventDone, Ref: m.Ref, Source: m.Source, Done: m.SizeBytes, Total: m.SizeBytes})
	h.log.Info("model fetched", "model", m.Ref, "source", m.Source, "bytes", m.SizeBytes)
	return m, nil
}

func (h *Hub) emit(e Event) {
	if h.cfg.Progress != nil {
		h.cfg.Progress(e)
	}
}
