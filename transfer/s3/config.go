package s3

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// Config describes a Bucket.
type Config struct {
	// Endpoint is the store, as http://HOST:PORT or https://HOST. Empty: that of AWS in
	// Region.
	Endpoint string
	// Bucket is the bucket's name. No default.
	Bucket string
	// Prefix begins all names, with a slash behind it. Default: none.
	Prefix string
	// Region is part of signatures. Default us-east-1.
	Region string
	// KeyID and Secret are the credentials, and Session what belongs to temporary ones.
	// No default.
	KeyID, Secret, Session string
	// Attempts bounds how often a request is sent. Default 4.
	Attempts int
	// Transport sends requests. Default nil: over the network.
	Transport http.RoundTripper
	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
}

// DefaultConfig returns the defaults. Bucket, KeyID and Secret have none.
func DefaultConfig() Config { return Config{Region: "us-east-1", Attempts: 4} }

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)})
	}
	if u, err := url.Parse(c.endpoint()); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		fault("%q is no address of an object store; give http://HOST:PORT or https://HOST", c.Endpoint)
	}
	if !bucketName.MatchString(c.Bucket) {
		fault("%q is no name of a bucket; give 3 to 63 lower-case letters, digits, dots and hyphens", c.Bucket)
	}
	if len(c.Prefix) > MaxKeyBytes/2 {
		fault("the prefix has %d bytes; %d are possible", len(c.Prefix), MaxKeyBytes/2)
	}
	if c.Region == "" {
		fault("no region; give us-east-1 for a store that has none (AWS_REGION)")
	}
	if c.KeyID == "" || c.Secret == "" {
		fault("no credentials for the object store; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	if c.Attempts < 1 || c.Attempts > MaxAttempts {
		fault("%d attempts of a request; 1 to %d are possible", c.Attempts, MaxAttempts)
	}
	return errors.Join(faults...)
}

func (c *Config) endpoint() string {
	if c.Endpoint == "" {
		return "https://s3." + c.Region + ".amazonaws.com"
	}
	return c.Endpoint
}

// network is the transport over the network.
func network() *http.Transport {
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, TLSHandshakeTimeout: dialTime,
		MaxIdleConns: idleConns, MaxIdleConnsPerHost: idleConns, IdleConnTimeout: attemptTime * 6,
		DisableCompression: true, ForceAttemptHTTP2: false, WriteBufferSize: bufferBytes, ReadBufferSize: bufferBytes,
	}
}
