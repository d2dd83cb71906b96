// Package s3server is an object store that speaks S3, in memory, for tests. It
// enforces what a real one does: every request is signed (Signature Version 4) with
// the credentials it knows, and its payload is what was signed. Beside that it fails
// and lies as it is told to. Tests of transfer/s3, of the remote KV tier and of
// object memories use it.
//
// One bucket, path-style addresses. Objects: PUT (with If-None-Match: *), GET (with
// Range), HEAD, DELETE, uploads in parts, and ListObjectsV2 in pages.
package s3server
