package s3

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// Bucket is a bucket of an object store. It has no goroutine of its own, and is safe
// for concurrent use.
type Bucket struct {
	config  Config
	client  minio.Core
	secure  bool
	idle    interface{ CloseIdleConnections() } // nil: somebody else's
	log     *slog.Logger
	breaker breaker
	seed    uint64 // scatters this instance's pauses
	// unconditional says that the store knows no conditional puts.
	unconditional atomic.Bool
}

// New returns a bucket. It asks nothing of the store.
func New(c Config) (*Bucket, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	base, err := url.Parse(c.endpoint())
	if err != nil {
		return nil, err
	}
	if c.Prefix = strings.Trim(c.Prefix, "/"); c.Prefix != "" {
		c.Prefix += "/"
	}
	b := &Bucket{config: c, secure: base.Scheme == "https", log: obs.For(c.Logger, "s3")}
	o := minio.Options{Creds: credentials.NewStaticV4(c.KeyID, c.Secret, c.Session), Secure: b.secure, Region: c.Region, Transport: c.Transport, MaxRetries: 1}
	if c.Transport == nil {
		t := network()
		o.Transport, b.idle = t, t
	}
	o.Transport = waits{o.Transport}
	if b.client.Client, err = minio.New(base.Host, &o); err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Err: err, Message: fmt.Sprintf("%q is no address of an object store; give http://HOST:PORT or https://HOST", c.endpoint())}
	}
	var seed [8]byte
	rand.Read(seed[:])
	b.seed = binary.LittleEndian.Uint64(seed[:])
	return b, nil
}

// Close lets go of idle connections.
func (b *Bucket) Close() error {
	if b.idle != nil {
		b.idle.CloseIdleConnections()
	}
	return nil
}

func (b *Bucket) name(name string) (string, error) {
	if key := b.config.Prefix + name; name != "" && len(key) <= MaxKeyBytes {
		return key, nil
	}
	return "", &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("an object's name has %d bytes; 1 to %d are possible, with the prefix", len(name), MaxKeyBytes)}
}

// Get fills data from an offset on of an object. An object that is not there is
// KindNotFound, and one that ends before is KindCorrupt.
func (b *Bucket) Get(ctx context.Context, name string, data []byte, offset int64) error {
	key, err := b.name(name)
	if err != nil || len(data) == 0 {
		return err
	}
	err = b.do(ctx, &call{op: "get", key: key, moves: len(data), send: func(ctx context.Context) error {
		o := minio.GetObjectOptions{}
		if err := o.SetRange(offset, offset+int64(len(data))-1); err != nil {
			return short("%d bytes at %d of an object: %v", len(data), offset, err)
		}
		body, info, header, err := b.client.GetObject(ctx, b.config.Bucket, key, o)
		if err != nil {
			return err
		}
		defer body.Close() // it was only read
		if r := header.Get("Content-Range"); r == "" && offset > 0 || r != "" && !strings.HasPrefix(r, fmt.Sprintf("bytes %d-", offset)) {
			return short("the object store answers with another range of %s: %q, not from %d on", name, r, offset)
		}
		if info.Size >= 0 && info.Size < int64(len(data)) {
			return short("object %s has %d bytes from %d on, not %d", name, info.Size, offset, len(data))
		}
		_, err = io.ReadFull(body, data)
		if info.Size < 0 && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)) {
			return short("object %s has fewer bytes from %d on than %d", name, offset, len(data))
		}
		return err
	}})
	if err == nil {
		b.config.Metrics.moved("get", len(data))
	}
	return err
}

// Put makes or replaces an object.
func (b *Bucket) Put(ctx context.Context, name string, data []byte) error {
	return b.put(ctx, name, data, false)
}

// PutNew makes an object where there is none; where there is one it does nothing and
// succeeds. Stores that know no conditional puts are asked first whether there is one.
func (b *Bucket) PutNew(ctx context.Context, name string, data []byte) error {
	return b.put(ctx, name, data, true)
}

func (b *Bucket) put(ctx context.Context, name string, data []byte, onlyNew bool) error {
	key, err := b.name(name)
	if err != nil {
		return err
	}
	if (len(data)+partBytes-1)/partBytes > maxParts {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("an object of %d bytes; %d are possible", len(data), maxParts*partBytes)}
	}
	for {
		o := minio.PutObjectOptions{DisableContentSha256: true} // it is signed as a whole
		conditional := false
		switch {
		case onlyNew && b.unconditional.Load():
			if there, err := b.Has(ctx, name); there || err != nil {
				return err
			}
		case onlyNew:
			o.SetMatchETagExcept("*")
			conditional = true
		}
		if len(data) > partBytes {
			err = b.upload(ctx, key, data, o)
		} else {
			err = b.putOne(ctx, key, data, o)
		}
		switch {
		case err == nil:
			b.config.Metrics.moved("put", len(data))
			return nil
		case errors.Is(err, errThere):
			return nil
		case errors.Is(err, errUnconditional) && conditional:
			b.unconditional.Store(true)
		default:
			return err
		}
	}
}

// putOne puts an object by one request.
func (b *Bucket) putOne(ctx context.Context, key string, data []byte, o minio.PutObjectOptions) error {
	hash := b.hash(data)
	return b.do(ctx, &call{op: "put", key: key, moves: len(data), send: func(ctx context.Context) error {
		body := hold(data)
		defer body.Close()
		_, err := b.client.PutObject(ctx, b.config.Bucket, key, body, int64(len(data)), "", hash, o)
		return err
	}})
}

// Has reports whether there is an object.
func (b *Bucket) Has(ctx context.Context, name string) (bool, error) {
	key, err := b.name(name)
	if err != nil {
		return false, err
	}
	err = b.do(ctx, b.head(key))
	if err != nil && dynamo.KindOf(err) == dynamo.KindNotFound {
		return false, nil
	}
	return err == nil, err
}

func (b *Bucket) head(key string) *call {
	return &call{op: "head", key: key, send: func(ctx context.Context) error {
		_, err := b.client.StatObject(ctx, b.config.Bucket, key, minio.StatObjectOptions{})
		return err
	}}
}

// Delete removes an object; one that is not there is removed already.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	key, err := b.name(name)
	if err != nil {
		return err
	}
	err = b.do(ctx, &call{op: "delete", key: key, send: func(ctx context.Context) error {
		return b.client.RemoveObject(ctx, b.config.Bucket, key, minio.RemoveObjectOptions{})
	}})
	if err != nil && dynamo.KindOf(err) == dynamo.KindNotFound {
		return nil
	}
	return err
}

// List yields the names of all objects that begin with prefix, behind the bucket's
// own, until yield returns false. A list may be older than what was put or deleted.
func (b *Bucket) List(ctx context.Context, prefix string, yield func(name string) bool) error {
	after := ""
	for {
		names, err := b.page(ctx, b.config.Prefix+prefix, after)
		if err != nil {
			return err
		}
		for _, key := range names {
			if name, ok := strings.CutPrefix(key, b.config.Prefix); ok && key > after && strings.HasPrefix(name, prefix) && !yield(name) {
				return nil
			}
		}
		if len(names) < pageKeys || names[len(names)-1] <= after {
			return nil
		}
		after = names[len(names)-1]
	}
}

// page lists the next names after one, as many as come at once.
func (b *Bucket) page(ctx context.Context, prefix, after string) (names []string, err error) {
	err = b.do(ctx, &call{op: "list", key: prefix, send: func(ctx context.Context) error {
		names = names[:0]
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		for o := range b.client.ListObjectsIter(ctx, b.config.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, MaxKeys: pageKeys, StartAfter: after}) {
			if o.Err != nil {
				return o.Err
			}
			if names = append(names, o.Key); len(names) == pageKeys {
				break
			}
		}
		return nil
	}})
	return names, err
}
