package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/dynamo-go/dynamo"
)

// Codes of errors, beneath their kind.
const (
	// CodeResting: the store went on failing and is left alone for a while.
	CodeResting = "s3_resting"
	// CodeRefused: the store does not let these credentials at the bucket, or has none
	// of that name.
	CodeRefused = "s3_refused"
	// CodeFailed: the store or the network failed, more than once.
	CodeFailed = "s3_failed"
)

// again reports whether what a store said instead of serving a request may change.
func again(a *minio.ErrorResponse) bool {
	switch a.StatusCode {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusConflict:
		return true
	}
	return a.Code == "RequestTimeout" || a.Code == "SlowDown" || a.Code == "InternalError"
}

// throttled reports whether the store asks for fewer requests.
func throttled(a *minio.ErrorResponse) bool {
	return a.StatusCode == http.StatusServiceUnavailable || a.StatusCode == http.StatusTooManyRequests || a.Code == "SlowDown"
}

// said returns what the store said, if err is that; else nil: it said nothing, or
// nothing that can be understood.
func said(err error) *minio.ErrorResponse {
	var a minio.ErrorResponse
	if errors.As(err, &a) && a.StatusCode != 0 {
		return &a
	}
	return nil
}

// errThere and errUnconditional are what a conditional put ends with: there is an
// object, and the store knows no conditions.
var (
	errThere         = errors.New("there is an object of that name")
	errUnconditional = errors.New("the object store knows no conditional puts")
)

// short is an object that ends before it should.
func short(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf(format, args...)}
}

// classify turns the end of an operation into an error of this project and a verdict.
func (b *Bucket) classify(ctx context.Context, err error, took time.Duration) (verdict, error) {
	a := said(err)
	var e *dynamo.Error
	switch {
	case err == nil:
		return served, nil
	case ctx.Err() != nil:
		v := unknown
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && took >= slowAfter {
			v = failed
		}
		return v, fmt.Errorf("ask the object store: %w", context.Cause(ctx))
	case errors.As(err, &e): // of ours
		return served, err
	case a != nil && a.StatusCode == http.StatusNotFound && a.Code != minio.NoSuchBucket:
		return served, &dynamo.Error{Kind: dynamo.KindNotFound, Message: "the object store has no such object"}
	case a != nil && a.StatusCode == http.StatusPreconditionFailed:
		return served, errThere
	case a != nil && a.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return served, short("the object ends before the range that was asked for")
	case a != nil && (a.StatusCode == http.StatusNotImplemented || a.Code == "NotImplemented"):
		return served, errUnconditional
	case a != nil && !again(a):
		return failed, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: CodeRefused, Err: err, Message: b.refusal(a)}
	}
	return failed, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: CodeFailed, Err: err,
		Message: fmt.Sprintf("the object store at %s did not serve a request in %d attempts", b.config.endpoint(), b.config.Attempts)}
}

// refusal says what to do about a store that refuses a request.
func (b *Bucket) refusal(a *minio.ErrorResponse) string {
	switch {
	case a.Code == "RequestTimeTooSkewed":
		return "the object store refuses requests signed by this machine's clock, which is wrong; set it"
	case a.Region != "" && a.Region != b.config.Region:
		return fmt.Sprintf("bucket %q is in region %s, not %s; say so (AWS_REGION, or region= in the address), with that region's endpoint", b.config.Bucket, a.Region, b.config.Region)
	case a.Code == "InvalidAccessKeyId", a.Code == "SignatureDoesNotMatch", a.Code == "InvalidToken", a.Code == "ExpiredToken":
		return fmt.Sprintf("the object store at %s does not know these credentials (%s); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN", b.config.endpoint(), a.Code)
	case a.Code == "InvalidPart":
		return fmt.Sprintf("the object store at %s does not have the parts of an object as they were put; if that goes on it is broken", b.config.endpoint())
	case a.Code == minio.NoSuchBucket:
		return fmt.Sprintf("the object store at %s has no bucket %q; make it, or check its name", b.config.endpoint(), b.config.Bucket)
	}
	return fmt.Sprintf("the object store refuses bucket %q; check its name, the region, and the credentials, which must be let list, get, put and delete", b.config.Bucket)
}
