package s3server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	algorithm = "AWS4-HMAC-SHA256"
	unsigned  = "UNSIGNED-PAYLOAD"
	stamp     = "20060102T150405Z"
	maxSkew   = 15 * time.Minute
)

// refusal is an error of S3.
type refusal struct {
	status  int
	code    string
	message string
	region  string // where the bucket is
}

func denied(format string, args ...any) *refusal {
	return &refusal{status: http.StatusForbidden, code: "AccessDenied", message: fmt.Sprintf(format, args...)}
}

// Verify checks the signature of a request, but not the payload against the hash that
// was signed, at a time.
func Verify(r *http.Request, c *Credentials, now time.Time) error {
	if bad := verify(r, c, now); bad != nil {
		return fmt.Errorf("%s: %s", bad.code, bad.message)
	}
	return nil
}

func verify(r *http.Request, c *Credentials, now time.Time) *refusal {
	fields, ok := strings.CutPrefix(r.Header.Get("Authorization"), algorithm+" ")
	if !ok {
		return denied("no signature")
	}
	said := map[string]string{}
	for _, f := range strings.Split(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		said[name] = value
	}
	id, scope, _ := strings.Cut(said["Credential"], "/")
	if id != c.KeyID {
		return &refusal{status: http.StatusForbidden, code: "InvalidAccessKeyId", message: "no such key"}
	}
	at, err := time.Parse(stamp, r.Header.Get("X-Amz-Date"))
	if err != nil || now.Sub(at).Abs() > maxSkew {
		return &refusal{status: http.StatusForbidden, code: "RequestTimeTooSkewed", message: "signed at " + r.Header.Get("X-Amz-Date")}
	}
	if want := at.Format("20060102") + "/" + c.Region + "/s3/aws4_request"; scope != want {
		return &refusal{status: http.StatusBadRequest, code: "AuthorizationHeaderMalformed", message: "the scope is " + scope + ", not " + want, region: c.Region}
	}
	if r.Header.Get("X-Amz-Security-Token") != c.Session {
		return &refusal{status: http.StatusForbidden, code: "InvalidToken", message: "another session"}
	}
	signed := strings.Split(said["SignedHeaders"], ";")
	must := []string{"host"}
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
			must = append(must, name)
		}
	}
	for _, name := range must {
		if !slices.Contains(signed, name) {
			return denied("the header %s is not signed", name)
		}
	}
	request := sha256.Sum256([]byte(canonical(r, signed)))
	text := strings.Join([]string{algorithm, at.Format(stamp), scope, hex.EncodeToString(request[:])}, "\n")
	key := []byte("AWS4" + c.Secret)
	for _, step := range strings.Split(scope, "/") {
		key = sum(key, step)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(sum(key, text))), []byte(said["Signature"])) {
		return &refusal{status: http.StatusForbidden, code: "SignatureDoesNotMatch", message: "the signature is another one"}
	}
	return nil
}

func sum(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonical is the form of a request that is signed.
func canonical(r *http.Request, signed []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", r.Method, escape(r.URL.Path, true))
	query := r.URL.Query()
	var pairs []string
	for name, values := range query {
		for _, v := range values {
			pairs = append(pairs, escape(name, false)+"="+escape(v, false))
		}
	}
	slices.Sort(pairs)
	b.WriteString(strings.Join(pairs, "&") + "\n")
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		if name == "content-length" && value == "" {
			value = fmt.Sprint(r.ContentLength)
		}
		b.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + r.Header.Get("X-Amz-Content-Sha256"))
	return b.String()
}

// escape writes all but letters, digits, and -_.~ as %XX.
func escape(s string, path bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~", c) >= 0 || path && c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
