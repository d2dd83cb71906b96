package tier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Shared is a store in a folder of a file system that several instances share: one file
// for each key, named by it, in 256 folders by its first byte. A file is written under
// another name and then renamed, so that it is whole as soon as it can be found.
type Shared struct{ dir string }

var (
	_ Store  = (*Shared)(nil)
	_ Finder = (*Shared)(nil)
)

// partial begins the names of files that are being written.
const partial = "part-"

// OpenShared opens a store in a folder, which is made.
func OpenShared(dir string) (*Shared, error) {
	if err := os.MkdirAll(dir, 0o770); err != nil {
		return nil, fmt.Errorf("open the remote tier: %w", advise(err, "--kvbm-remote"))
	}
	return &Shared{dir}, nil
}

func (s *Shared) path(k dynamo.ContentKey) string {
	name := k.String()
	return filepath.Join(s.dir, name[:2], name)
}

// Put implements Store.
func (s *Shared) Put(_ context.Context, r Ref, frame []byte) error {
	path := s.path(r.Key)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), partial)
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Stat(s.dir); gone != nil {
			return fmt.Errorf("the shared folder is not there: %w", gone)
		}
		if err = os.Mkdir(filepath.Dir(path), 0o770); err == nil || errors.Is(err, fs.ErrExist) {
			f, err = os.CreateTemp(filepath.Dir(path), partial)
		}
	}
	if err != nil {
		return fmt.Errorf("write a block to the shared folder: %w", err)
	}
	_, err = f.Write(frame)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error that matters is the other
		return fmt.Errorf("write a block to the shared folder: %w", err)
	}
	return nil
}

// Get implements Store.
func (s *Shared) Get(_ context.Context, r Ref, frame []byte) error {
	f, err := os.Open(s.path(r.Key))
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("the shared folder has no such block")
	}
	if err != nil {
		return fmt.Errorf("read a block from the shared folder: %w", err)
	}
	n, err := io.ReadFull(f, frame)
	_ = f.Close() // it was only read
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return corrupt("the file has %d bytes, not %d", n, len(frame))
	case err != nil:
		return fmt.Errorf("read a block from the shared folder: %w", err)
	}
	return nil
}

// Delete implements Store.
func (s *Shared) Delete(_ context.Context, r Ref) error {
	if err := os.Remove(s.path(r.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete a block from the shared folder: %w", err)
	}
	return nil
}

// Find implements Finder.
func (s *Shared) Find(ctx context.Context, keys []dynamo.ContentKey) (int, error) {
	for i, k := range keys {
		if ctx.Err() != nil {
			return i, context.Cause(ctx)
		}
		if _, err := os.Stat(s.path(k)); errors.Is(err, fs.ErrNotExist) {
			return i, nil
		} else if err != nil {
			return i, fmt.Errorf("look into the shared folder: %w", err)
		}
	}
	return len(keys), nil
}

// List implements Store. It removes what other processes left half written.
func (s *Shared) List(ctx context.Context, yield func(Ref) bool) error {
	for first := range 256 {
		dir := filepath.Join(s.dir, fmt.Sprintf("%02x", first))
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("list the shared folder: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, f := range files {
			if strings.HasPrefix(f.Name(), partial) {
				if info, err := f.Info(); err == nil && time.Since(info.ModTime()) > staleAfter {
					_ = os.Remove(filepath.Join(dir, f.Name())) // another may do it too
				}
				continue
			}
			r := Ref{Slot: -1}
			if b, err := hex.DecodeString(f.Name()); err != nil || copy(r.Key[:], b) != len(r.Key) || len(b) != len(r.Key) {
				continue
			}
			if !yield(r) {
				return nil
			}
		}
	}
	return nil
}

// Close implements Store.
func (s *Shared) Close() error { return nil }
