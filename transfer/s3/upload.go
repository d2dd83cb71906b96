package s3

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/minio/minio-go/v7"

	"github.com/dynamo-go/dynamo"
)

// upload puts a large object in parts. If anything fails they are given up, so that
// the store keeps none.
func (b *Bucket) upload(ctx context.Context, key string, data []byte, o minio.PutObjectOptions) error {
	var id string
	err := b.do(ctx, &call{op: "upload", key: key, send: func(ctx context.Context) (err error) {
		id, err = b.client.NewMultipartUpload(ctx, b.config.Bucket, key, minio.PutObjectOptions{})
		return err
	}})
	if err != nil {
		return err
	}
	parts, err := b.uploadParts(ctx, key, id, data)
	if err == nil {
		err = b.complete(ctx, key, id, parts, o)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		// What fails here the store's own rule for unfinished uploads removes.
		_ = b.do(ctx, &call{op: "upload", key: key, send: func(ctx context.Context) error {
			return b.client.AbortMultipartUpload(ctx, b.config.Bucket, key, id)
		}})
	}
	return err
}

// uploadParts puts the parts, several at once. The first failure stops all.
func (b *Bucket) uploadParts(ctx context.Context, key, id string, data []byte) ([]minio.CompletePart, error) {
	parts := make([]minio.CompletePart, (len(data)+partBytes-1)/partBytes)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var lanes sync.WaitGroup
	for range min(partLanes, len(parts)) {
		lanes.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(parts) {
					return
				}
				etag, err := b.uploadPart(ctx, key, id, i+1, data[i*partBytes:min((i+1)*partBytes, len(data))])
				if err != nil {
					stop(err)
				}
				parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: etag}
			}
		})
	}
	lanes.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return parts, nil
}

func (b *Bucket) uploadPart(ctx context.Context, key, id string, number int, part []byte) (etag string, err error) {
	hash := b.hash(part)
	err = b.do(ctx, &call{op: "upload", key: key, moves: len(part), send: func(ctx context.Context) error {
		body := hold(part)
		defer body.Close()
		p, err := b.client.PutObjectPart(ctx, b.config.Bucket, key, id, number, body, int64(len(part)), minio.PutObjectPartOptions{Sha256Hex: hash, DisableContentSha256: true})
		etag = p.ETag
		return err
	}})
	return etag, err
}

// complete makes the parts an object, on the conditions of the put.
func (b *Bucket) complete(ctx context.Context, key, id string, parts []minio.CompletePart, o minio.PutObjectOptions) error {
	err := b.do(ctx, &call{op: "upload", key: key, moves: len(parts) * partBytes, send: func(ctx context.Context) error {
		_, err := b.client.CompleteMultipartUpload(ctx, b.config.Bucket, key, id, parts, o)
		return err
	}})
	if err != nil && dynamo.KindOf(err) == dynamo.KindNotFound {
		// No such upload: an answer was lost, and it is complete.
		return b.do(ctx, b.head(key))
	}
	return err
}
