package node

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

// clusterKeyFile holds 32 random bytes in hexadecimal and a newline, mode 0600,
// in the state directory. It is made once; whoever shares it shares a cluster.
const (
	clusterKeyFile  = "cluster.key"
	clusterKeyBytes = 32
)

// ClusterKey reads the cluster key of a state directory, making it the first
// time. Two processes that make it at once agree on one.
func ClusterKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, clusterKeyFile)
	key, err := readClusterKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory (--state-dir): %w", err)
	}
	tmp, err := os.CreateTemp(dir, clusterKeyFile+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("make the cluster key (--state-dir): %w", err)
	}
	defer os.Remove(tmp.Name())
	fresh := make([]byte, clusterKeyBytes)
	rand.Read(fresh) // never fails
	_, err = tmp.WriteString(hex.EncodeToString(fresh) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, fmt.Errorf("make the cluster key (--state-dir): %w", err)
	}
	// A link, unlike a rename, does not replace a key that another process made
	// in the meantime.
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the cluster key (--state-dir): %w", err)
	}
	return readClusterKey(path)
}

func readClusterKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the cluster key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the cluster key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the cluster key %s can be read by others (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)}
	}
	text, err := io.ReadAll(io.LimitReader(f, 4*clusterKeyBytes))
	if err != nil {
		return nil, fmt.Errorf("read the cluster key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != clusterKeyBytes {
		return nil, &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("the cluster key %s does not hold %d bytes in hexadecimal; put the right one there, or delete it to make a new one (caches of tenants are then lost)", path, clusterKeyBytes)}
	}
	return key, nil
}
