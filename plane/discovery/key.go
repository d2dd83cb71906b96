package discovery

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// keyFile holds keyBytes random bytes in hexadecimal and a newline, mode 0600. It
// is made once; whoever shares it shares a cluster.
const (
	keyFile  = "cluster.key"
	keyBytes = 32
)

// MakeKey reads the cluster key of a directory, making it the first time, and the
// directory too. Two processes that make it at once agree on one.
func MakeKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, keyFile)
	key, err := ReadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the cluster key (or give --cluster-key-file): %w", err)
	}
	fresh := make([]byte, keyBytes)
	rand.Read(fresh) // never fails
	if err := placeKey(dir, fresh); err != nil {
		return nil, err
	}
	return ReadKey(path)
}

// placeKey writes key into dir unless there is one.
func placeKey(dir string, key []byte) error {
	tmp, err := os.CreateTemp(dir, "."+keyFile+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("make the cluster key (or give --cluster-key-file): %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(hex.EncodeToString(key) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("make the cluster key (or give --cluster-key-file): %w", err)
	}
	// A link, unlike a rename, does not replace a key that another process made
	// in the meantime.
	if err := os.Link(tmp.Name(), filepath.Join(dir, keyFile)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the cluster key (or give --cluster-key-file): %w", err)
	}
	return nil
}

// ReadKey reads a cluster key file.
func ReadKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster key (--cluster-key-file): %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the cluster key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the cluster key %s is no regular file; give the key's file (--cluster-key-file)", path)}
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the cluster key %s can be read by others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)}
	}
	text, err := io.ReadAll(io.LimitReader(f, 4*keyBytes))
	if err != nil {
		return nil, fmt.Errorf("read the cluster key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keyBytes {
		return nil, &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("the cluster key %s does not hold %d bytes in hexadecimal; put the right one there, or delete it to make a new one (caches of tenants are then lost)", path, keyBytes)}
	}
	return key, nil
}
