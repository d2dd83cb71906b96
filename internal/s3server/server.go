package s3server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
)

// Credentials are who may use the server.
type Credentials struct{ KeyID, Secret, Session, Region string }

// Fault is what the server does instead of answering.
type Fault string

// The faults.
const (
	SlowDown    Fault = "slow down"     // 503 SlowDown, with Retry-After: 0
	Broken      Fault = "broken"        // 500 InternalError
	Hang        Fault = "hang"          // no answer
	Cut         Fault = "cut"           // the connection ends in the middle of the body
	Shorter     Fault = "shorter"       // an object of half its bytes
	Flipped     Fault = "flipped"       // one bit of it is another
	OtherObject Fault = "other object"  // the bytes of another object
	Stale       Fault = "stale listing" // not there, although listed
	LostAnswer  Fault = "lost answer"   // it is done, and the connection ends before that is said
	Late        Fault = "late fault"    // a completed upload answers 200 with an error in its body
	Denied      Fault = "denied"        // 403 AccessDenied
	Wait        Fault = "wait"          // 503 SlowDown, with Retry-After: 20
	Skewed      Fault = "skewed"        // 403 RequestTimeTooSkewed
	Redirected  Fault = "redirected"    // 301 PermanentRedirect: the bucket is in region eu-other-1
	Unstored    Fault = "unstored"      // 200, and nothing is put
	WrongETag   Fault = "wrong etag"    // what is put is said to be something else
	StaleList   Fault = "stale list"    // a list lacks every second object, and has ones that are gone
)

// Server keeps the objects of one bucket. It is an http.Handler.
type Server struct {
	// PageKeys bounds a page of a list; 0 is 1000.
	PageKeys int

	bucket string
	access Credentials
	mu     struct {
		sync.Mutex
		objects  map[string][]byte
		uploads  map[string]map[int][]byte
		lastID   int
		requests int
		lies     int
		fault    func(*http.Request) Fault
	}
}

// maxBody bounds what the server reads of a request.
const maxBody = 256 << 20

// New returns a server of an empty bucket.
func New(bucket string, access Credentials) *Server {
	s := &Server{bucket: bucket, access: access}
	s.mu.objects, s.mu.uploads = map[string][]byte{}, map[string]map[int][]byte{}
	return s
}

// Inject has f asked what to do about each request that is signed as it should be; nil
// ends that.
func (s *Server) Inject(f func(r *http.Request) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.fault = f
}

// Object returns an object; nil if it is not there.
func (s *Server) Object(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.objects[key]
}

// Keys returns the names of all objects, in order.
func (s *Server) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]string, 0, len(s.mu.objects))
	for k := range s.mu.objects {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Uploads is the number of uploads in parts that were neither completed nor given up.
func (s *Server) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.uploads)
}

// Requests is the number of requests so far, with those that were refused.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.requests
}

// Lies is the number of reads so far that were answered with what the object is not: those
// of an object that was there.
func (s *Server) Lies() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.lies
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.mu.requests++
	inject := s.mu.fault
	s.mu.Unlock()
	bad := verify(r, &s.access, time.Now())
	var body []byte
	if bad == nil {
		body, bad = payload(r)
	}
	var fault Fault
	if bad == nil && inject != nil {
		fault = inject(r)
	}
	switch fault {
	case SlowDown:
		w.Header().Set("Retry-After", "0")
		bad = &refusal{status: http.StatusServiceUnavailable, code: "SlowDown", message: "please reduce your request rate"}
	case Broken:
		bad = &refusal{status: http.StatusInternalServerError, code: "InternalError", message: "we encountered an internal error"}
	case Wait:
		w.Header().Set("Retry-After", "20")
		bad = &refusal{status: http.StatusServiceUnavailable, code: "SlowDown", message: "please reduce your request rate"}
	case Skewed:
		bad = &refusal{status: http.StatusForbidden, code: "RequestTimeTooSkewed", message: "the difference between the request time and the current time is too large"}
	case Redirected:
		w.Header().Set("X-Amz-Bucket-Region", "eu-other-1")
		bad = &refusal{status: http.StatusMovedPermanently, code: "PermanentRedirect", message: "the bucket must be addressed using another endpoint"}
	case Denied:
		bad = denied("not you")
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/"+s.bucket)
	if bad == nil && (!ok || path != "" && path[0] != '/') {
		bad = &refusal{status: http.StatusNotFound, code: "NoSuchBucket", message: "no such bucket"}
	}
	if bad == nil {
		bad = s.serve(w, r, strings.TrimPrefix(path, "/"), body, fault)
	}
	if bad != nil {
		answer(w, bad.status, errorXML{Code: bad.code, Message: bad.message, Region: bad.region})
	}
}

// payload reads a body and compares it with the hash that was signed.
func payload(r *http.Request) ([]byte, *refusal) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, &refusal{status: http.StatusBadRequest, code: "IncompleteBody", message: err.Error()}
	}
	hash := sha256.Sum256(b)
	if want := r.Header.Get("X-Amz-Content-Sha256"); want != unsigned && want != hex.EncodeToString(hash[:]) {
		return nil, &refusal{status: http.StatusBadRequest, code: "XAmzContentSHA256Mismatch", message: "the payload is another one"}
	}
	return b, nil
}

type errorXML struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
	Region  string `xml:",omitempty"`
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := xml.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(xml.Header), b...)) // the client may be gone
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, key string, body []byte, fault Fault) *refusal {
	q := r.URL.Query()
	upload := q.Get("uploadId")
	switch {
	case key == "" && r.Method == http.MethodGet && q.Get("list-type") == "2":
		s.list(w, q, fault)
		return nil
	case key == "":
	case r.Method == http.MethodPost && q.Has("uploads"):
		return s.begin(w)
	case r.Method == http.MethodPost && upload != "":
		return s.complete(w, r, key, upload, body, fault)
	case r.Method == http.MethodPut && upload != "":
		return s.part(w, upload, q.Get("partNumber"), body, fault)
	case r.Method == http.MethodDelete && upload != "":
		s.mu.Lock()
		delete(s.mu.uploads, upload)
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
		return nil
	case r.Method == http.MethodPut:
		return s.put(w, r, key, body, fault)
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		return s.get(w, r, key, fault)
	case r.Method == http.MethodDelete:
		s.mu.Lock()
		delete(s.mu.objects, key)
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return &refusal{status: http.StatusNotImplemented, code: "NotImplemented", message: "no such operation"}
}

// keep stores an object, unless it is there and the request says to leave it then.
func (s *Server) keep(r *http.Request, key string, b []byte) *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.mu.objects[key]; there && r.Header.Get("If-None-Match") == "*" {
		return &refusal{status: http.StatusPreconditionFailed, code: "PreconditionFailed", message: "it is there"}
	}
	s.mu.objects[key] = b
	return nil
}

func etag(b []byte) string {
	h := xxh3.Hash128(b).Bytes()
	return `"` + hex.EncodeToString(h[:]) + `"`
}

func (s *Server) put(w http.ResponseWriter, r *http.Request, key string, body []byte, fault Fault) *refusal {
	if fault != Unstored {
		if bad := s.keep(r, key, body); bad != nil {
			return bad
		}
	}
	if fault == WrongETag {
		body = []byte("something else")
	}
	if fault == LostAnswer {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("ETag", etag(body))
	return nil
}

func (s *Server) begin(w http.ResponseWriter) *refusal {
	s.mu.Lock()
	s.mu.lastID++
	id := "upload-" + strconv.Itoa(s.mu.lastID)
	s.mu.uploads[id] = map[int][]byte{}
	s.mu.Unlock()
	answer(w, http.StatusOK, struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		UploadID string   `xml:"UploadId"`
	}{UploadID: id})
	return nil
}

func (s *Server) part(w http.ResponseWriter, upload, number string, body []byte, fault Fault) *refusal {
	n, err := strconv.Atoi(number)
	s.mu.Lock()
	defer s.mu.Unlock()
	parts, ok := s.mu.uploads[upload]
	if !ok || err != nil || n < 1 {
		return &refusal{status: http.StatusNotFound, code: "NoSuchUpload", message: "no such upload"}
	}
	parts[n] = body
	if fault == WrongETag {
		body = []byte("something else")
	}
	w.Header().Set("ETag", etag(body))
	return nil
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request, key, upload string, body []byte, fault Fault) *refusal {
	var list struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if err := xml.Unmarshal(body, &list); err != nil {
		return &refusal{status: http.StatusBadRequest, code: "MalformedXML", message: err.Error()}
	}
	if fault == Late {
		answer(w, http.StatusOK, errorXML{Code: "InternalError", Message: "we encountered an internal error"})
		return nil
	}
	s.mu.Lock()
	parts, ok := s.mu.uploads[upload]
	if !ok {
		s.mu.Unlock()
		return &refusal{status: http.StatusNotFound, code: "NoSuchUpload", message: "no such upload"}
	}
	var whole []byte
	for i, p := range list.Part {
		ok = ok && p.PartNumber == i+1 && strings.Trim(p.ETag, `"`) == strings.Trim(etag(parts[p.PartNumber]), `"`)
		whole = append(whole, parts[p.PartNumber]...)
	}
	s.mu.Unlock()
	if !ok {
		return &refusal{status: http.StatusBadRequest, code: "InvalidPart", message: "the parts are not those that were uploaded"}
	}
	if fault != Unstored {
		if bad := s.keep(r, key, whole); bad != nil {
			return bad
		}
	}
	s.mu.Lock()
	delete(s.mu.uploads, upload)
	s.mu.Unlock()
	if fault == LostAnswer {
		panic(http.ErrAbortHandler)
	}
	answer(w, http.StatusOK, struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket  string
		Key     string
		ETag    string
	}{Bucket: s.bucket, Key: key, ETag: etag(whole)})
	return nil
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, key string, fault Fault) *refusal {
	s.mu.Lock()
	b, ok := s.mu.objects[key]
	if fault == OtherObject {
		for k, other := range s.mu.objects {
			if k != key {
				b = other
				break
			}
		}
	}
	if ok && r.Method == http.MethodGet && slices.Contains([]Fault{Shorter, Flipped, OtherObject, Stale}, fault) {
		s.mu.lies++
	}
	s.mu.Unlock()
	if !ok || fault == Stale && r.Method == http.MethodGet {
		return &refusal{status: http.StatusNotFound, code: "NoSuchKey", message: "no such key"}
	}
	switch fault {
	case Shorter:
		b = b[:len(b)/2]
	case Flipped:
		b = bytes.Clone(b)
		b[len(b)*2/3] ^= 4
	case Cut:
		w = cutter{w}
	}
	w.Header().Set("ETag", etag(b))
	http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), bytes.NewReader(b))
	return nil
}

// cutter ends the connection in the middle of the body.
type cutter struct{ http.ResponseWriter }

// Write implements http.ResponseWriter.
func (c cutter) Write(b []byte) (int, error) {
	_, _ = c.ResponseWriter.Write(b[:len(b)/2]) // the client may be gone
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// list answers with one page of names.
func (s *Server) list(w http.ResponseWriter, q url.Values, fault Fault) {
	prefix, after := q.Get("prefix"), max(q.Get("continuation-token"), q.Get("start-after"))
	name := func(k string) string { return k }
	if q.Get("encoding-type") == "url" {
		name = func(k string) string { return escape(k, true) }
	}
	type object struct {
		Key  string
		Size int
	}
	page := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		EncodingType          string `xml:",omitempty"`
		Contents              []object
	}{EncodingType: q.Get("encoding-type")}
	limit := 1000
	if s.PageKeys > 0 {
		limit = s.PageKeys
	}
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil {
		limit = min(limit, n)
	}
	last := ""
	for i, k := range s.Keys() {
		if fault == StaleList && i%2 == 1 && len(k) > 0 { // another one, which is gone
			k = k[:len(k)-1] + string(k[len(k)-1]^1)
		}
		if !strings.HasPrefix(k, prefix) || after != "" && k <= after {
			continue
		}
		if len(page.Contents) == limit {
			page.IsTruncated, page.NextContinuationToken = true, last
			break
		}
		page.Contents = append(page.Contents, object{name(k), len(s.Object(k))})
		last = k
	}
	answer(w, http.StatusOK, page)
}

// Transport answers requests within the caller's goroutine's reach, without a
// network: in a bubble of testing/synctest, too. Faults that end connections are
// errors there.
func (s *Server) Transport() http.RoundTripper { return transport{s} }

type transport struct{ s *Server }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	r = r.Clone(r.Context())
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	w := &recorder{header: http.Header{}}
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			resp, err = nil, fmt.Errorf("the connection was closed; %w", io.ErrUnexpectedEOF)
			if r.Context().Err() != nil {
				err = r.Context().Err()
			}
		} else if p != nil {
			panic(p)
		}
	}()
	t.s.ServeHTTP(w, r)
	if w.status == 0 {
		w.status = http.StatusOK
	}
	b := w.body.Bytes()
	if r.Method == http.MethodHead {
		b = nil
	}
	return &http.Response{StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header, Body: io.NopCloser(bytes.NewReader(b)),
		ContentLength: int64(len(b)), Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}
