package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The stores.
const (
	storeFile = "file"
	storeEtcd = "etcd"
)

// store is where the parts of a cluster find each other.
type store interface {
	start(ctx context.Context) error
	// backend is the value of --discovery-backend.
	backend() string
	// outages lists the ways in which the store can be lost. Each returns what
	// brings it back.
	outages() []outage
	stop()
}

// outage is one way to lose a store, and back returns it.
type outage struct {
	name   string
	marked bool // frontends mark their view as stale meanwhile
	lose   func(ctx context.Context) (back func(ctx context.Context) error, err error)
}

func newStore(kind, dir string, o *options) store {
	if kind == storeEtcd {
		return &etcdStore{program: o.etcd, dir: dir}
	}
	return &fileStore{dir: filepath.Join(dir, "store")}
}

// fileStore is a directory.
type fileStore struct{ dir string }

func (s *fileStore) start(context.Context) error { return nil } // its first user makes it
func (s *fileStore) backend() string             { return "file:" + s.dir }
func (s *fileStore) stop()                       {}

func (s *fileStore) outages() []outage {
	return []outage{
		{"store directory moved away, a file in its place", true, s.moveAway},
		{"store directory deleted for good", false, func(context.Context) (func(context.Context) error, error) {
			return func(context.Context) error { return nil }, os.RemoveAll(s.dir)
		}},
	}
}

// moveAway does to the directory what a lost mount does: it is not there and
// cannot be made.
func (s *fileStore) moveAway(context.Context) (func(context.Context) error, error) {
	away := s.dir + ".away"
	if err := os.Rename(s.dir, away); err != nil {
		return nil, err
	}
	// Between the two calls somebody may have made the directory again.
	for {
		err := os.WriteFile(s.dir, []byte("not a directory\n"), 0o600)
		if err == nil {
			break
		}
		if e := os.RemoveAll(s.dir); e != nil {
			return nil, errors.Join(err, e)
		}
	}
	return func(context.Context) error {
		if err := os.Remove(s.dir); err != nil {
			return err
		}
		for {
			err := os.Rename(away, s.dir)
			if !errors.Is(err, syscall.EEXIST) && !errors.Is(err, syscall.ENOTEMPTY) {
				return err
			}
			if err := os.RemoveAll(s.dir); err != nil {
				return err
			}
		}
	}, nil
}

// etcdStore is one etcd member.
type etcdStore struct {
	program, dir string
	address      string // once it has started for the first time
	lives        int
	process      *process
}

func (s *etcdStore) start(ctx context.Context) error {
	listen := s.address
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	s.lives++
	addr := filepath.Join(s.dir, fmt.Sprintf("etcd-%d.addr", s.lives))
	p, err := spawn(s.dir, "etcd", s.program, "-dir", filepath.Join(s.dir, "etcd"), "-listen", listen, "-addr-file", addr)
	if err != nil {
		return err
	}
	s.process = p
	err = until(ctx, startTimeout, func() error {
		if !p.running() {
			return fmt.Errorf("etcd ended: %s", p.tail())
		}
		b, err := os.ReadFile(addr)
		s.address = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		s.address = listen
		return fmt.Errorf("start etcd: %w", err)
	}
	return nil
}

func (s *etcdStore) backend() string { return "etcd://" + s.address }

func (s *etcdStore) stop() {
	if s.process != nil {
		s.process.kill()
	}
}

func (s *etcdStore) outages() []outage {
	return []outage{
		{"etcd stopped (SIGSTOP)", true, func(context.Context) (func(context.Context) error, error) {
			return func(context.Context) error { return s.process.signal(syscall.SIGCONT) }, s.process.signal(syscall.SIGSTOP)
		}},
		{"etcd killed (kill -9)", true, func(context.Context) (func(context.Context) error, error) {
			s.process.kill()
			return s.start, nil
		}},
	}
}

// age sets the modification times of everything in a directory.
func age(dir string, when time.Time) (files int, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // it has just gone
		}
		if os.Chtimes(path, when, when) == nil {
			files++
		}
		return nil
	})
	return files, err
}
