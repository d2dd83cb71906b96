package etcd

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// local is where "etcd" is.
const local = "127.0.0.1:2379"

// target is what a store's name says.
type target struct {
	addresses      []string // host:port
	user, password string
	tls            *tls.Config // nil: none
}

// String names the endpoints without the password.
func (t *target) String() string { return strings.Join(t.addresses, ",") }

// endpoints returns the addresses as the client library wants them.
func (t *target) endpoints() []string {
	scheme := "http://"
	if t.tls != nil {
		scheme = "https://"
	}
	urls := make([]string, len(t.addresses))
	for i, a := range t.addresses {
		urls[i] = scheme + a
	}
	return urls
}

// parseName reads "etcd" and "etcd[s]://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]".
// The certificates of etcds are checked against the system's roots.
func parseName(name string) (*target, error) {
	if name == "etcd" {
		return &target{addresses: []string{local}}, nil
	}
	scheme, rest, _ := strings.Cut(name, "://")
	t := &target{}
	switch scheme {
	case "etcd":
	case "etcds":
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return nil, badName("it begins with neither etcd:// nor etcds://")
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		rest = rest[at+1:]
		var errs [2]error
		t.user, errs[0] = url.PathUnescape(user)
		t.password, errs[1] = url.PathUnescape(password)
		if t.user == "" || t.password == "" || errs[0] != nil || errs[1] != nil {
			return nil, badName("before the @ stand USER:PASSWORD, percent-encoded")
		}
	}
	for _, a := range strings.Split(strings.TrimSuffix(rest, "/"), ",") {
		host, port, err := net.SplitHostPort(a)
		if n, numeric := strconv.ParseUint(port, 10, 16); err != nil || host == "" || numeric != nil || n == 0 {
			return nil, badName(fmt.Sprintf("%q is no HOST:PORT", a))
		}
		t.addresses = append(t.addresses, a)
	}
	return t, nil
}

// badName does not repeat the name, which may hold a password.
func badName(why string) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: "--discovery-backend",
		Message: "--discovery-backend: " + why + "; use etcd, or etcd://HOST:PORT with more of them after commas"}
}
