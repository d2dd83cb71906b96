package remoteapi

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Config describes a server and what is served from it.
type Config struct {
	// URL is the server's address, with or without the /v1 at its end.
	// (--engine-url)
	URL string
	// Model is the model's name at the server; empty is Name. (--engine-model)
	Model string
	// Name is the served name.
	Name string
	// APIKey is sent as a bearer token; empty sends none. (--engine-api-key)
	APIKey string
	// Timeout is how long the server may send nothing while a request waits for it;
	// 0 waits for ever. Default 2 minutes, which a long prompt on a slow machine
	// takes. (--engine-timeout)
	Timeout time.Duration
	// Decode makes a prompt's ids the text that is sent; special tokens must be
	// spelled out in it. nil sends the ids.
	Decode func([]dynamo.TokenID) string
	// Begin lists ids that the server itself puts before a text; one of them at the
	// beginning of a prompt is not decoded. Usually the beginning-of-sequence id, if
	// the tokenizer adds one.
	Begin []dynamo.TokenID
	// ContextLength and VocabSize are what requests are checked against.
	ContextLength, VocabSize int
	// BlockSize is the KV block size the card states, in tokens; nothing is known of
	// the server's. Default 16.
	BlockSize int
	// EOS lists the ids that end an answer, for the card; the server has its own.
	EOS []dynamo.TokenID
	// TLS is how the server of an https URL is told apart from others; nil trusts
	// what the machine trusts. A Transport has its own. (--engine-ca,
	// --engine-insecure)
	TLS *tls.Config
	// Transport carries requests; nil is one of net/http's own.
	Transport http.RoundTripper
	// Logger is told of requests at level debug; nil discards.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Timeout: 2 * time.Minute, BlockSize: 16} }

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, err := c.base(); err != nil {
		faults = append(faults, err)
	}
	if c.Name == "" {
		fault("--model-name is empty")
	}
	if strings.ContainsAny(c.APIKey, " \t\r\n") {
		fault("the API key (--engine-api-key) has spaces or line ends in it")
	}
	if c.Timeout < 0 {
		fault("--engine-timeout is %v; it must be 0 (never) or more", c.Timeout)
	}
	if c.ContextLength < 2 {
		fault("--context-length is %d; it must be 2 or more", c.ContextLength)
	}
	if c.BlockSize < 1 {
		fault("--kv-cache-block-size is %d; it must be 1 or more", c.BlockSize)
	}
	if c.VocabSize < 1 {
		fault("the vocabulary has %d ids; it must have one or more", c.VocabSize)
	}
	return errors.Join(faults...)
}

// base returns the URL that /completions and /models are below.
func (c *Config) base() (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("--engine-url is %q; it must look like http://HOST:PORT or https://HOST/v1", c.URL)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("--engine-url has a user, a query or a fragment; leave them out, and give a key with --engine-api-key")
	}
	s := strings.TrimRight(c.URL, "/")
	last := s[strings.LastIndexByte(s, '/')+1:]
	if len(last) == 2 && last[0] == 'v' && last[1] >= '0' && last[1] <= '9' && strings.Count(s, "/") > 2 {
		return s, nil
	}
	return s + "/v1", nil
}
