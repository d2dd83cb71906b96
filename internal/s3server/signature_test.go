package s3server_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/internal/s3server"
)

// TestVerify takes the examples of the documentation of Signature Version 4 for S3.
func TestVerify(t *testing.T) {
	c := &s3server.Credentials{KeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Region: "us-east-1"}
	now := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, e := range []struct {
		url, signed, signature string
		header                 map[string]string
	}{
		{"https://examplebucket.s3.amazonaws.com/test.txt", "host;range;x-amz-content-sha256;x-amz-date",
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", map[string]string{"Range": "bytes=0-9"}},
		{"https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date",
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", nil},
	} {
		r, err := http.NewRequest(http.MethodGet, e.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range e.header {
			r.Header.Set(k, v)
		}
		r.Header.Set("X-Amz-Content-Sha256", empty)
		r.Header.Set("X-Amz-Date", "20130524T000000Z")
		authorize := func(signature string) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="+e.signed+",Signature="+signature)
		}
		authorize(e.signature)
		if err := s3server.Verify(r, c, now); err != nil {
			t.Errorf("%s: %v", e.url, err)
		}
		if err := s3server.Verify(r, c, now.Add(time.Hour)); err == nil {
			t.Errorf("%s: an old signature was taken", e.url)
		}
		r.URL.Path += "x"
		if err := s3server.Verify(r, c, now); err == nil {
			t.Errorf("%s: another path was taken", e.url)
		}
	}
}
