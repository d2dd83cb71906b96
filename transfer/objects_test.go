package transfer_test

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/s3server"
	"github.com/dynamo-go/dynamo/transfer"
	"github.com/dynamo-go/dynamo/transfer/s3"
)

var _ transfer.Objects = (*s3.Bucket)(nil)

// TestBucket has pages in an object store that fails now and then: what is written
// comes back, to another agent too, and when the store is down the transfer says so.
func TestBucket(t *testing.T) {
	const size, page = 1<<20 + 100, 64 << 10
	access := s3server.Credentials{KeyID: "key", Secret: "secret", Region: "us-east-1"}
	s := s3server.New("kv-cache", access)
	h := httptest.NewServer(s)
	defer h.Close()
	open := func() (a *transfer.Agent, own, far *transfer.Memory) {
		c := s3.DefaultConfig()
		c.Endpoint, c.Bucket, c.KeyID, c.Secret = h.URL, "kv-cache", access.KeyID, access.Secret
		c.Attempts = s3.MaxAttempts // whose faults fall where they fall
		b, err := s3.New(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		a, _ = start(t, config(t, "worker-1", transfer.PathLocal, nil, ""))
		own = memory(t, a, transfer.Section{Name: "own"}, size)
		return a, own, register(t, a, transfer.Section{Name: "far", Objects: b, Size: size, PageBytes: page, Access: transfer.AccessWrite})
	}
	a, own, far := open()
	var n atomic.Int64
	s.Inject(func(r *http.Request) s3server.Fault {
		switch n.Add(1) % 7 {
		case 2:
			return s3server.SlowDown
		case 5:
			if r.Method == http.MethodGet {
				return s3server.Cut
			}
			return s3server.LostAnswer
		}
		return ""
	})
	pattern(own.Bytes(), 9)
	var local, remote []transfer.Descriptor
	const parts = 20
	r := rand.New(rand.NewPCG(1, 3))
	want := make([]byte, size)
	for i, k := range r.Perm(parts) {
		length := 1 + r.Int64N(size/parts)
		local, remote = append(local, own.At(int64(i)*(size/parts), length)), append(remote, far.At(int64(k)*(size/parts), length))
		copy(want[remote[i].Offset:], own.Bytes()[local[i].Offset:][:length])
	}
	local, remote = append(local, own.At(size-8, 8)), append(remote, far.At(size-8, 8)) // a page that is shorter
	copy(want[size-8:], own.Bytes()[size-8:])
	if err := post(t, a, transfer.Write, local, remote, transfer.Options{Checksum: true}); err != nil {
		t.Fatal(err)
	}
	if got := len(s.Keys()); got != (size+page-1)/page {
		t.Errorf("%d objects: %v", got, s.Keys())
	}
	a, own, far = open()
	all := func() error {
		return post(t, a, transfer.Read, []transfer.Descriptor{own.At(0, size)}, []transfer.Descriptor{far.At(0, size)}, transfer.Options{})
	}
	if err := all(); err != nil || !bytes.Equal(own.Bytes(), want) {
		t.Errorf("another agent reads other bytes; %v", err)
	}
	s.Inject(func(*http.Request) s3server.Fault { return s3server.Shorter })
	if err := all(); dynamo.KindOf(err) != dynamo.KindCorrupt || code(err) != transfer.CodeMedium {
		t.Errorf("objects that are too short: %v", err)
	}
	h.CloseClientConnections()
	s.Inject(func(*http.Request) s3server.Fault { return s3server.Denied })
	if err := all(); dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("a store that refuses: %v", err)
	}
}
