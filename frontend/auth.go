package frontend

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// Keys are the API keys a server accepts, each with the tenant it belongs to.
// Only their SHA-256 is kept. It is immutable once a server uses it.
type Keys struct {
	seed maphash.Seed
	by   map[uint64][]apiKey
	n    int
}

type apiKey struct {
	digest [sha256.Size]byte
	tenant string
}

// NewKeys returns an empty set.
func NewKeys() *Keys {
	return &Keys{seed: maphash.MakeSeed(), by: map[uint64][]apiKey{}}
}

// Len returns the number of keys.
func (k *Keys) Len() int { return k.n }

// Add accepts a key given in plain text. An empty tenant shares the cache of all
// who have none.
func (k *Keys) Add(tenant, key string) error {
	if key == "" {
		return errors.New("--api-key is empty; give a key or leave the flag out")
	}
	return k.add(tenant, sha256.Sum256([]byte(key)))
}

var (
	headerName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	tenantName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)
	keyLine    = regexp.MustCompile(`^([^:\s]*)\s*:\s*sha256\s*:\s*([0-9A-Fa-f]{64})$`)
)

// Read accepts the keys of a file. Each line is
//
//	tenant:sha256:HEX
//
// where HEX is the SHA-256 of the key in hexadecimal (printf %s KEY | sha256sum)
// and tenant is made of letters, digits and ._@- ; empty lines and lines that
// begin with # are skipped. A tenant may have several keys.
func (k *Keys) Read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		m := keyLine.FindStringSubmatch(line)
		if m == nil || !tenantName.MatchString(m[1]) {
			return fmt.Errorf("--api-keys: line %d is not tenant:sha256:HEX with 64 hexadecimal digits", n)
		}
		var digest [sha256.Size]byte
		if _, err := hex.Decode(digest[:], []byte(m[2])); err != nil {
			return fmt.Errorf("--api-keys: line %d: %w", n, err)
		}
		if err := k.add(m[1], digest); err != nil {
			return fmt.Errorf("--api-keys: line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("--api-keys: %w", err)
	}
	return nil
}

func (k *Keys) add(tenant string, digest [sha256.Size]byte) error {
	if k.n == maxKeys {
		return fmt.Errorf("more than %d keys", maxKeys)
	}
	if _, twice := k.find(digest); twice {
		return errors.New("this key is given twice")
	}
	at := k.slot(digest)
	k.by[at] = append(k.by[at], apiKey{digest, tenant})
	k.n++
	return nil
}

// slot spreads digests by a secret of this process, so that the time of a look-up
// says nothing about the digests that are there.
func (k *Keys) slot(digest [sha256.Size]byte) uint64 {
	return maphash.Bytes(k.seed, digest[:])
}

func (k *Keys) find(digest [sha256.Size]byte) (tenant string, ok bool) {
	for _, key := range k.by[k.slot(digest)] {
		if subtle.ConstantTimeCompare(key.digest[:], digest[:]) == 1 {
			tenant, ok = key.tenant, true
		}
	}
	return tenant, ok
}

// tenant returns whose request r is.
func (k *Keys) tenant(r *http.Request) (string, error) {
	if k == nil {
		return "", nil
	}
	key, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		key = r.Header.Get("X-Api-Key")
	}
	if key == "" {
		return "", unauthorized("this server wants an API key; send it as Authorization: Bearer KEY")
	}
	tenant, ok := k.find(sha256.Sum256([]byte(strings.TrimSpace(key))))
	if !ok {
		return "", unauthorized("the API key is not known here")
	}
	return tenant, nil
}

// tenant returns whose request r is: what its key says, or what a trusted header
// says where the key says nothing.
func (s *Server) tenant(r *http.Request) (string, error) {
	tenant, err := s.config.APIKeys.tenant(r)
	if err != nil || tenant != "" || s.config.TenantHeader == "" {
		return tenant, err
	}
	name := r.Header.Get(s.config.TenantHeader)
	if name != "" && !tenantName.MatchString(name) {
		return "", &dynamo.Error{Kind: dynamo.KindInvalid, Param: strings.ToLower(s.config.TenantHeader), Message: fmt.Sprintf("the header %s is %q; a tenant's name has 1 to 64 letters, digits and ._@-", s.config.TenantHeader, clip(name))}
	}
	return name, nil
}

// caller returns whose request r is, having answered it if it may not be made.
func (s *Server) caller(w http.ResponseWriter, r *http.Request) (tenant string, ok bool) {
	tenant, err := s.tenant(r)
	if err != nil {
		status, e := publicError(err)
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		s.refuse(w, r, status, e)
		return "", false
	}
	return tenant, true
}

func unauthorized(message string) error {
	return &httpError{http.StatusUnauthorized, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "invalid_api_key", Message: message}}
}
