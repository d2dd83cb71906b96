package discovery

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
)

// readNames lists a directory in order, at most maxNames of it.
func readNames(dir *os.File) ([]string, error) {
	names, err := dir.Readdirnames(maxNames)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// scanner reads the directory for one watch, whose goroutine it belongs to.
type scanner struct {
	f    *File
	path Path
	// dir is the directory that was read last, kept open so that none that comes
	// in its place can be taken for it; nil: none was.
	dir      *os.File
	rev      uint64
	files    map[string]*watched
	problems map[string]string // by name, what was reported
	fresh    []error           // problems that are not reported yet
}

// watched is a file that holds an instance.
type watched struct {
	info  os.FileInfo
	owner wireOwner
	entry Entry
	// file is kept open while the lock tells whether the owner lives.
	file *os.File
	// dead: the owner was found dead. It stays so while the file stays the same,
	// for who clears it away holds the lock for a moment.
	dead bool
	// beat is when the file was seen to change last, gone since when it has not
	// been in place; zero: it is.
	beat, gone time.Time
	seen       bool // by the scan that runs
}

func newScanner(f *File, p Path) *scanner {
	return &scanner{f: f, path: p, files: map[string]*watched{}, problems: map[string]string{}}
}

func (s *scanner) close() {
	s.forgetDir()
	for _, w := range s.files {
		w.close()
	}
}

func (w *watched) close() {
	if w.file != nil {
		_ = w.file.Close() // it was only read
		w.file = nil
	}
}

// lost reports whether the directory cannot be read, or is not the one that was
// read last.
func (s *scanner) lost() bool {
	if s.dir == nil {
		return false
	}
	a, errA := s.dir.Stat()
	b, errB := os.Stat(s.f.dir)
	return errA != nil || errB != nil || !os.SameFile(a, b)
}

func (s *scanner) forgetDir() {
	if s.dir != nil {
		_ = s.dir.Close() // it was only read
		s.dir = nil
	}
}

// scan reads the directory.
func (s *scanner) scan(now time.Time) error {
	dir, err := os.Open(s.f.dir)
	if err != nil {
		s.forgetDir()
		return err
	}
	names, err := readNames(dir)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	s.forgetDir()
	s.dir = dir
	for _, w := range s.files {
		w.seen = false
	}
	present := map[string]bool{}
	if len(names) == maxNames {
		present["."] = true
		s.report(".", &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("the directory holds %d entries or more, and only so many are read", maxNames)})
	}
	taken := 0
	for _, name := range names {
		if name[0] == '.' {
			continue
		}
		present[name] = true
		k, ok := parseFileName(name)
		switch {
		case !ok:
			s.report(name, corrupt("its name is none of an instance file", nil))
			continue
		case !s.path.Covers(k.Path):
			continue
		case taken >= MaxInstances:
			s.report(name, &dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("there are more than %d instances", MaxInstances)})
			continue
		}
		taken++
		s.look(name, k, now)
	}
	for name := range s.problems {
		if !present[name] {
			delete(s.problems, name)
		}
	}
	for _, w := range s.files {
		if !w.seen && w.gone.IsZero() {
			w.gone = now
		}
	}
	s.check(now)
	return nil
}

// report keeps a problem for the caller, unless it is known.
func (s *scanner) report(name string, err error) {
	if s.problems[name] == err.Error() || s.problems[name] == "" && len(s.problems) >= maxProblems {
		return
	}
	s.problems[name] = err.Error()
	path := filepath.Join(s.f.dir, name)
	s.fresh = append(s.fresh, &dynamo.Error{Kind: dynamo.KindOf(err), Err: err, Message: fmt.Sprintf("%s is passed over; put it right or remove it", path)})
}

// look takes in the file of that name if it is new or changed.
func (s *scanner) look(name string, k Key, now time.Time) {
	path := filepath.Join(s.f.dir, name)
	w := s.files[name]
	info, err := os.Lstat(path)
	if err != nil || info.Mode().IsRegular() && info.Size() == 0 {
		return // gone since the directory was read, or about to be written
	}
	if w != nil && os.SameFile(w.info, info) && w.info.Size() == info.Size() && w.info.ModTime().Equal(info.ModTime()) {
		w.seen, w.gone = true, time.Time{}
		return
	}
	next, err := s.read(path, k)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return
	case err != nil:
		s.report(name, err)
		return
	}
	next.beat, next.seen = now, true
	delete(s.problems, name)
	if w == nil {
		s.rev++
		next.entry.Rev = s.rev
	} else {
		w.close()
		next.entry.Rev = w.entry.Rev
		if !sameInstance(&w.entry.Instance, &next.entry.Instance) {
			s.rev++
			next.entry.Rev = s.rev
		}
	}
	s.files[name] = next
}

// sameInstance compares what is stored of two instances.
func sameInstance(a, b *Instance) bool {
	x, errX := EncodeInstance(*a)
	y, errY := EncodeInstance(*b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// read reads a file and checks that it is what its name says.
func (s *scanner) read(path string, k Key) (*watched, error) {
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, corrupt("it is no regular file", nil)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	w, err := s.readOpen(file, k)
	if err != nil || w.file == nil {
		_ = file.Close() // it was only read
	}
	return w, err
}

func (s *scanner) readOpen(file *os.File, k Key) (*watched, error) {
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, corrupt("it is no regular file", nil)
	case info.Size() > maxFileBytes:
		return nil, corrupt(fmt.Sprintf("it has %d bytes, of which %d are possible", info.Size(), maxFileBytes), nil)
	case info.Mode().Perm()&0o022 != 0:
		return nil, corrupt(fmt.Sprintf("others may write it (mode %04o); run: chmod 600 on it if it is yours", info.Mode().Perm()), nil)
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFileBytes))
	if err != nil {
		return nil, err
	}
	i, owner, err := decodeFile(b)
	if err != nil {
		return nil, err
	}
	if i.Key() != k {
		return nil, corrupt(fmt.Sprintf("its name is not that of the instance in it, %v at %v", i.ID, i.Path), nil)
	}
	w := &watched{info: info, owner: owner, entry: Entry{Instance: i}}
	if owner.Locked && owner.Kernel == s.f.kernel && s.f.kernel != "" {
		if _, err := lockHeld(file); err == nil {
			w.file = file
		}
	}
	return w, nil
}

// check finds out which owners live.
func (s *scanner) check(now time.Time) {
	for name, w := range s.files {
		if !w.dead && w.file != nil {
			s.checkLock(name, w, now)
			w = s.files[name]
		}
		switch {
		case w == nil:
		case w.file != nil && w.dead && !w.gone.IsZero():
			w.close()
			delete(s.files, name)
		case w.file == nil && !w.gone.IsZero() && now.Sub(w.gone) >= recoverGrace:
			delete(s.files, name)
		case w.file == nil:
			s.checkBeat(name, w, now)
		}
	}
}

// checkBeat finds out whether the owner of a file without a lock has touched it
// in time. Scans are rarer than touches may be, so the file is looked at again
// before its owner is given up.
func (s *scanner) checkBeat(name string, w *watched, now time.Time) {
	if !w.dead && now.Sub(w.beat) >= w.owner.ttl() {
		if file, err := os.OpenFile(filepath.Join(s.f.dir, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err == nil {
			_ = file.Close() // NFS asks the server for the file's time when it is opened
		}
		s.look(name, w.entry.Instance.Key(), now)
		w = s.files[name]
	}
	w.dead = now.Sub(w.beat) >= w.owner.ttl()
}

// wait gives all owners their TTL again, after a time in which no touch could be
// seen.
func (s *scanner) wait(now time.Time) {
	for _, w := range s.files {
		if !w.dead {
			w.beat = now
		}
	}
}

// checkLock asks the lock of a file whether the owner lives. A free lock may also
// mean that the owner has just put another file in its place.
func (s *scanner) checkLock(name string, w *watched, now time.Time) {
	if held, err := lockHeld(w.file); err != nil || held {
		return
	}
	info, err := os.Lstat(filepath.Join(s.f.dir, name))
	if err != nil || os.SameFile(info, w.info) || info.Size() == 0 {
		w.dead = true
		return
	}
	s.look(name, w.entry.Instance.Key(), now)
	if s.files[name] == w {
		w.dead = true // what lies there is not readable as an instance
	}
}

// state returns the instances whose owners live.
func (s *scanner) state() map[Key]Entry {
	state := make(map[Key]Entry, len(s.files))
	for _, w := range s.files {
		if !w.dead {
			state[w.entry.Instance.Key()] = w.entry
		}
	}
	return state
}

// limbo reports whether there is a file that was removed while its owner may
// live.
func (s *scanner) limbo(now time.Time) bool {
	for _, w := range s.files {
		if !w.gone.IsZero() && now.Sub(w.gone) < recoverGrace {
			return true
		}
	}
	return false
}

// settled reports whether every instance of the view whose owner may live is in
// the directory again.
func (s *scanner) settled(v *View) bool {
	for k, told := range v.Entries() {
		w := s.files[fileName(k)]
		if w != nil && !w.dead && !w.gone.IsZero() && told.Instance.Epoch == w.entry.Instance.Epoch {
			return false
		}
	}
	return true
}

// problemsOnce returns the problems that were not returned before.
func (s *scanner) problemsOnce() []error {
	p := s.fresh
	s.fresh = nil
	return p
}
