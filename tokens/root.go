package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
)

// Root separates caches: XXH3-64 of the adapter's name with seed 0, if there is
// one, plus XXH3-64 of the namespace with seed 1, if there is one, wrapping. The
// shared root is 0.
func Root(lora, namespace string) dynamo.CacheRoot {
	var root uint64
	if lora != "" {
		root += xxh3.HashString(lora)
	}
	if namespace != "" {
		root += xxh3.HashStringSeed(namespace, 1)
	}
	return dynamo.CacheRoot(root)
}

// Namespace derives the cache namespace of a request, which is also the cache salt
// that other engines receive: the first 32 hexadecimal digits of
// HMAC-SHA-256(clusterKey, tenant, group, salt), each part preceded by its length
// as a little-endian 64-bit word. Without tenant and salt it is empty: the shared
// cache.
//
// The tenant is what the API key says; the salt comes from the client and, being
// hashed beside the tenant, can only narrow what is shared, never widen it.
func Namespace(clusterKey []byte, tenant, group, salt string) string {
	if tenant == "" && salt == "" {
		return ""
	}
	mac := hmac.New(sha256.New, clusterKey)
	var buf []byte
	for _, part := range []string{tenant, group, salt} {
		buf = appendPart(buf, part)
	}
	mac.Write(buf)
	return hex.EncodeToString(mac.Sum(nil))[:32]
}

// appendPart appends s preceded by its length, so that no two lists of parts
// encode alike.
func appendPart(dst []byte, s string) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(s)))
	return append(dst, s...)
}
