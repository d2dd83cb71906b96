package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
)

// errStalled is the cause of a request that brought no byte for stallTimeout.
var errStalled = errors.New("no data came for " + stallTimeout.String())

// client speaks HTTP with the hub and the hosts it redirects to.
type client struct {
	endpoint *url.URL
	token    string
	http     *http.Client // follows redirects
	direct   *http.Client // shows them
	reached  atomic.Bool  // some request was answered: a host that is down may come back
}

func newClient(endpoint, token string) (*client, error) {
	u, err := url.Parse(strings.TrimRight(endpoint, "/"))
	if err != nil {
		return nil, fmt.Errorf("read the hub's address: %w", err)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:   tlsTimeout,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       headerTimeout,
		MaxIdleConnsPerHost:   maxConnections,
		// HTTP/2 would put every range on one connection; separate ones are what
		// makes parallel ranges fast.
		ForceAttemptHTTP2: false,
		// A compressed transfer would make ranges and sizes meaningless.
		DisableCompression: true,
	}
	c := &client{endpoint: u, token: token}
	c.http = &http.Client{Transport: transport, CheckRedirect: c.redirect}
	c.direct = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// redirect keeps the token at home: net/http would pass it on to subdomains and
// from https to http.
func (c *client) redirect(r *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	r.Header.Del("Authorization")
	c.authorize(r)
	return nil
}

func (c *client) authorize(r *http.Request) {
	if c.token != "" && r.URL.Scheme == c.endpoint.Scheme && r.URL.Host == c.endpoint.Host {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
}

// request builds a request for a path below the endpoint; its parts are escaped.
func (c *client) request(ctx context.Context, method string, parts ...string) (*http.Request, error) {
	u := *c.endpoint
	u.RawQuery = ""
	for i, p := range parts {
		parts[i] = strings.Trim(p, "/")
	}
	u = *u.JoinPath(escapeAll(parts)...)
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("build the request: %w", err)
	}
	r.Header.Set("User-Agent", "dynamo-go")
	c.authorize(r)
	return r, nil
}

// escapeAll escapes every segment of slash-separated parts, so that ? # and % in
// names stay names.
func escapeAll(parts []string) []string {
	var out []string
	for _, p := range parts {
		for seg := range strings.SplitSeq(p, "/") {
			out = append(out, url.PathEscape(seg))
		}
	}
	return out
}

// watch cancels the returned context when stir is not called for stallTimeout.
func watch(ctx context.Context) (_ context.Context, stir func(), stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	return ctx, func() { t.Reset(stallTimeout) }, func() { t.Stop(); cancel(nil) }
}

// statusError is an answer that is not a success.
type statusError struct {
	status int
	err    *dynamo.Error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// check turns an unsuccessful answer into an error that says what to do.
func (c *client) check(resp *http.Response, what string) error {
	c.reached.Store(true)
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	host, code := resp.Request.URL.Host, resp.Header.Get("X-Error-Code")
	e := &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("%s answers %s for %s; try again later", host, resp.Status, what)}
	gate := "; if it is private or gated, accept its conditions on the hub's page and set HF_TOKEN to a token with access"
	if c.token != "" {
		gate = "; the token in HF_TOKEN gives no access: accept the repository's conditions on the hub's page, or use another token"
	}
	switch {
	case code == "RepoNotFound" || resp.StatusCode == http.StatusUnauthorized:
		e.Kind, e.Code, e.Message = dynamo.KindNotFound, "model_not_found", fmt.Sprintf("%s knows no public %s (%s)%s", host, what, resp.Status, gate)
	case code == "GatedRepo" || resp.StatusCode == http.StatusForbidden:
		e.Kind, e.Message = dynamo.KindInvalid, fmt.Sprintf("%s refuses access to %s (%s)%s", host, what, resp.Status, gate)
	case resp.StatusCode == http.StatusNotFound:
		e.Kind, e.Code, e.Message = dynamo.KindNotFound, "model_not_found", fmt.Sprintf("%s has no %s (%s); check the name", host, what, resp.Status)
	case resp.StatusCode == http.StatusTooManyRequests:
		e.Message = fmt.Sprintf("%s answers %s for %s: too many requests from here; wait a while, or set HF_TOKEN", host, resp.Status, what)
	}
	return &statusError{status: resp.StatusCode, err: e}
}

// transient says whether trying again may help.
func transient(err error) bool {
	var full diskFault
	if errors.As(err, &full) {
		return false
	}
	var s *statusError
	if errors.As(err, &s) {
		return s.status >= 500 || s.status == http.StatusTooManyRequests || s.status == http.StatusRequestTimeout
	}
	var d *dynamo.Error
	return !errors.As(err, &d)
}

// unreachable words an error of the network: it names the host that was tried.
func (c *client) unreachable(err error) error {
	var d *dynamo.Error
	if errors.As(err, &d) {
		return err
	}
	host := c.endpoint.Host
	var u *url.Error
	if errors.As(err, &u) {
		if tried, perr := url.Parse(u.URL); perr == nil && tried.Host != "" && tried.Host != host {
			host += " and " + tried.Host
		}
		err = u.Err // its URL may carry a signature
	}
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "no answer from " + host + "; check the network, or set HF_ENDPOINT to a mirror", Err: err}
}

// nobody says that no connection could be made, and none ever was: that is a
// machine without a network, which is told soon.
func (c *client) nobody(err error) bool {
	var op *net.OpError
	return !c.reached.Load() && errors.As(err, &op) && op.Op == "dial"
}

// retry calls do until it succeeds, fails for good, or fails maxAttempts times
// without progress in between.
func (c *client) retry(ctx context.Context, do func() (progressed bool, err error)) error {
	wait, left := firstBackoff, maxAttempts
	for {
		progressed, err := do()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !transient(err) {
			return err
		}
		if progressed {
			wait, left = firstBackoff, maxAttempts
		}
		if left--; left <= 0 || c.nobody(err) && left < maxAttempts-1 {
			return c.unreachable(err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		wait = min(2*wait, maxBackoff)
	}
}
