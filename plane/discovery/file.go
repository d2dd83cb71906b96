package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// File is a store in a directory that processes share, on a local disk or NFS.
//
// The directory holds cluster.key and the folder instances, with one file for an
// instance: NAMESPACE@COMPONENT@ENDPOINT@ID.json, the id in 16 hexadecimal
// digits. The file is a JSON object:
//
//	format    1
//	owner     who keeps it: host (HostID), kernel (its boot id), pid, locked
//	          (whether it holds the file's lock), ttl_ms
//	instance  what EncodeInstance returns
//
// A file is written beside its place under a name that begins with a dot, and
// renamed; readers ignore such names, and empty files, which hold a place while
// that happens.
//
// An owner holds the lock of its file from before the rename to its end, and
// touches the file each third of its TTL. Watches under the same kernel know by
// the lock whether it lives; they keep the file open, so that the lock tells even
// when the file was removed by somebody else. All others go by the touches: an
// owner is dead when the file's time has not changed for a TTL, measured by the
// watch's own monotonic clock, so that clocks may differ and jump.
//
// Whoever holds the lock of the file that is in a place may replace it. That is
// how an owner updates, how a dead one's place is taken, and how files of the
// dead are cleared away.
type File struct {
	root, dir string // as given; its folder instances
	flag      string // which flag named it
	ttl       time.Duration
	log       *slog.Logger
	metrics   *Metrics
	closed    chan struct{}

	// What tests replace.
	kernel string
	lock   func(*os.File) error
	write  func(f *os.File, b []byte) error
	poll   bool          // do not use inotify
	pace   time.Duration // of looking whether owners live

	mu struct {
		sync.Mutex
		closed bool
		leases map[*fileLease]struct{}
		key    []byte    // once asked for
		swept  time.Time // when dead owners' files were cleared away last
	}
}

var _ Store = (*File)(nil)

// fileFormat is the version of a file's envelope.
const fileFormat = 1

// wireFile is the envelope.
type wireFile struct {
	Format   int            `json:"format"`
	Owner    wireOwner      `json:"owner"`
	Instance jsontext.Value `json:"instance"`
}

// wireOwner says who keeps a file.
type wireOwner struct {
	Host   string `json:"host"`
	Kernel string `json:"kernel"`
	PID    int    `json:"pid"`
	Locked bool   `json:"locked"`
	TTL    int64  `json:"ttl_ms"`
}

// ttl is how long the owner counts as alive without a touch.
func (o wireOwner) ttl() time.Duration {
	return min(max(time.Duration(min(o.TTL, int64(MaxTTL/time.Millisecond)))*time.Millisecond, MinTTL), MaxTTL)
}

// openFile opens the store in dir, which flag named, and makes it if it is
// missing.
func openFile(dir, flag string, c Config) (*File, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: find %s: %w", flag, dir, err)
	}
	f := &File{
		root: root, dir: filepath.Join(root, "instances"), flag: flag, ttl: c.TTL, log: obs.For(c.Logger, "discovery"),
		metrics: c.Metrics, closed: make(chan struct{}), kernel: kernelID(), lock: lockFile, write: writeSynced, pace: lockEvery,
	}
	f.mu.leases = map[*fileLease]struct{}{}
	if err := f.makeDir(); err != nil {
		return nil, err
	}
	info, err := os.Stat(f.dir)
	if err != nil {
		return nil, f.unusable("read", err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s: everybody may write to %s and so pretend to be a worker; run: chmod 700 %s", flag, f.dir, f.dir)}
	}
	return f, nil
}

// makeDir makes the directory, for its owner only, unless it is there.
func (f *File) makeDir() error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return f.unusable("make", err)
	}
	return nil
}

func (f *File) unusable(doing string, err error) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err, Message: fmt.Sprintf("%s: cannot %s the store's directory %s; make room and permission there, or give another directory", f.flag, doing, f.root)}
}

// writeSynced writes b and sees that it is on the disk.
func writeSynced(f *os.File, b []byte) error {
	_, err := f.Write(b)
	if err != nil {
		return err
	}
	return f.Sync()
}

// ClusterKey returns the key of the store's directory, making it the first time.
// Should the directory be lost, the key is written again with the instances.
func (f *File) ClusterKey() ([]byte, error) {
	key, err := MakeKey(f.root)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.key = key
	return key, nil
}

// restoreKey writes the key again if the directory lost it.
func (f *File) restoreKey() {
	f.mu.Lock()
	key := f.mu.key
	f.mu.Unlock()
	if key == nil {
		return
	}
	if _, err := os.Lstat(filepath.Join(f.root, keyFile)); errors.Is(err, os.ErrNotExist) {
		_ = placeKey(f.root, key) // tried again with the next tick
	}
}

// checkKey says so when another process has made another key while the directory
// was lost.
func (f *File) checkKey() {
	f.restoreKey()
	f.mu.Lock()
	key := f.mu.key
	f.mu.Unlock()
	if key == nil {
		return
	}
	if there, err := ReadKey(filepath.Join(f.root, keyFile)); err != nil || !bytes.Equal(there, key) {
		f.log.Error("the cluster key in the store's directory is not this process's any more; what starts from now on cannot reach it until it is restarted", obs.KeyError, err)
	}
}

// fileName is where an instance's file is in the directory.
func fileName(k Key) string {
	return k.Namespace + "@" + k.Component + "@" + k.Endpoint + "@" + k.ID.String() + ".json"
}

// parseFileName is the inverse of fileName.
func parseFileName(name string) (Key, bool) {
	stem, ok := strings.CutSuffix(name, ".json")
	parts := strings.Split(stem, "@")
	if !ok || len(parts) != 4 {
		return Key{}, false
	}
	id, err := dynamo.ParseWorkerID(parts[3])
	k := Key{Path{parts[0], parts[1], parts[2]}, id}
	return k, err == nil && validName(k.Namespace) && validName(k.Component) && validName(k.Endpoint) && fileName(k) == name
}

// encodeFile returns the content of an instance's file.
func (f *File) encodeFile(instance []byte, locked bool) ([]byte, error) {
	b, err := json.Marshal(&wireFile{
		Format: fileFormat, Instance: instance,
		Owner: wireOwner{Host: HostID(), Kernel: f.kernel, PID: os.Getpid(), Locked: locked, TTL: f.ttl.Milliseconds()},
	})
	return append(b, '\n'), err
}

// decodeFile reads the content of an instance's file.
func decodeFile(b []byte) (Instance, wireOwner, error) {
	var w wireFile
	var v struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return Instance{}, wireOwner{}, corrupt("it is no instance file", err)
	}
	if v.Format > fileFormat {
		return Instance{}, wireOwner{}, newer("file", v.Format, fileFormat)
	}
	if v.Format < 1 {
		return Instance{}, wireOwner{}, corrupt("it is no instance file (it lacks a format)", nil)
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return Instance{}, wireOwner{}, corrupt("it is no instance file", err)
	}
	i, err := DecodeInstance(w.Instance)
	return i, w.Owner, err
}

// Register registers i.
func (f *File) Register(ctx context.Context, i Instance) (Registration, error) {
	b, err := EncodeInstance(i)
	if err != nil {
		return nil, err
	}
	c, err := f.claim(ctx, i, b)
	if err != nil {
		return nil, err
	}
	l := &fileLease{f: f, place: c, instance: i, data: b, requests: make(chan leaseRequest), ended: make(chan struct{})}
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.mu.Lock()
	if f.mu.closed {
		f.mu.Unlock()
		l.cancel()
		return nil, errors.Join(closedError("store"), l.remove())
	}
	f.mu.leases[l] = struct{}{}
	f.mu.Unlock()
	go l.run(ctx) // ends with the registration's Close or the store's
	f.sweep(fileName(i.Key()))
	return l, nil
}

// Close ends the watches and registrations made through this handle.
func (f *File) Close() error {
	f.mu.Lock()
	if !f.mu.closed {
		f.mu.closed = true
		close(f.closed)
	}
	var open []*fileLease
	for l := range f.mu.leases {
		open = append(open, l)
	}
	f.mu.Unlock()
	var errs []error
	for _, l := range open {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
