package discovery

import (
	"bytes"
	"context"
	"errors"
	"os"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// fileLease is a registration of File. Its goroutine owns the file; the methods
// ask it.
type fileLease struct {
	f        *File
	cancel   context.CancelFunc
	requests chan leaseRequest
	ended    chan struct{} // closed when run has returned
	closeErr error         // of the file's removal; read after ended

	// Owned by run.
	place    place
	instance Instance
	data     []byte
	touched  time.Time
	lost     error // why the file is not in place; logged once
}

// leaseRequest asks run for something and receives the answer.
type leaseRequest struct {
	instance *Instance // what to publish; nil: end without removing the file
	data     []byte
	done     chan error // has room for it
}

// Update replaces what others see.
func (l *fileLease) Update(ctx context.Context, i Instance) error {
	b, err := EncodeInstance(i)
	if err != nil {
		return err
	}
	r := leaseRequest{instance: &i, data: b, done: make(chan error, 1)}
	select {
	case l.requests <- r:
		select {
		case err := <-r.done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	case <-l.ended:
		return closedError("registration")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close deregisters.
func (l *fileLease) Close() error {
	l.cancel()
	<-l.ended
	return l.closeErr
}

// run keeps the file in place until ctx ends, and then removes it.
func (l *fileLease) run(ctx context.Context) {
	defer close(l.ended)
	defer l.forget()
	l.touched = time.Now()
	tick := time.NewTicker(min(tendEvery, l.f.ttl/3))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.closeErr = l.remove()
			return
		case <-tick.C:
			l.tend(ctx)
		case r := <-l.requests:
			if r.instance == nil {
				r.done <- l.place.file.Close() // the lock goes with it
				return
			}
			r.done <- l.update(ctx, r)
		}
	}
}

func (l *fileLease) forget() {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	delete(l.f.mu.leases, l)
}

// update publishes another content, now or when the store is back.
func (l *fileLease) update(ctx context.Context, r leaseRequest) error {
	if r.instance.Key() != l.instance.Key() || r.instance.Epoch != l.instance.Epoch {
		return movedError()
	}
	l.instance, l.data = *r.instance, r.data
	if !inPlace(l.place.file, l.place.path) {
		return l.again(ctx)
	}
	p, err := l.f.put(l.place.path, l.data)
	if err != nil {
		l.place.info = nil // so that tend writes it
		return l.f.unusable("write to", err)
	}
	l.replace(p)
	return nil
}

// replace takes over a file that was put in the place of the one before.
func (l *fileLease) replace(p place) {
	_ = l.place.file.Close() // nothing is written through it
	l.place, l.touched = p, time.Now()
}

// tend sees that the file is in place and as it was written, and touches it when
// that is due.
func (l *fileLease) tend(ctx context.Context) {
	l.f.restoreKey()
	info, err := os.Lstat(l.place.path)
	if err != nil || !l.intact(info) {
		_ = l.again(ctx) // logged there, and tried again with the next tick
		return
	}
	l.place.info = info
	if time.Since(l.touched) < l.f.ttl/3 {
		return
	}
	now := time.Now()
	l.touched = now
	if err := os.Chtimes(l.place.path, now, now); err != nil {
		return // the next tick finds out what is wrong
	}
	if info, err := os.Lstat(l.place.path); err == nil && os.SameFile(info, l.place.info) {
		l.place.info = info
	}
}

// intact reports whether the file in place, of which info is, is this one and has
// the content it was given. A file system may change times by itself, so only the
// bytes say that it has not.
func (l *fileLease) intact(info os.FileInfo) bool {
	p := &l.place
	if p.info == nil || !os.SameFile(info, p.info) || info.Size() != int64(len(p.content)) || info.Mode() != p.info.Mode() {
		return false
	}
	if info.ModTime().Equal(p.info.ModTime()) {
		return true
	}
	b := make([]byte, len(p.content))
	_, err := p.file.ReadAt(b, 0)
	return err == nil && bytes.Equal(b, p.content)
}

// again registers anew after the file was lost.
func (l *fileLease) again(ctx context.Context) error {
	p, err := l.reclaim(ctx)
	switch {
	case err == nil:
		l.replace(p)
		l.lost = nil
		l.f.metrics.Reregistered()
		l.f.checkKey()
		l.f.log.Info("registered again", obs.KeyWorker, l.instance.ID)
	case l.lost == nil && ctx.Err() == nil:
		l.f.log.Warn("the store has lost the registration, which is tried again until it succeeds", obs.KeyWorker, l.instance.ID, obs.KeyError, err)
		l.lost = err
	}
	return err
}

// reclaim writes the file again: over its own if that was changed by somebody,
// else like a first registration.
func (l *fileLease) reclaim(ctx context.Context) (place, error) {
	if inPlace(l.place.file, l.place.path) {
		return l.f.put(l.place.path, l.data)
	}
	return l.f.claim(ctx, l.instance, l.data)
}

// remove takes the file away, if it is still this one, and gives up the lock.
func (l *fileLease) remove() error {
	var err error
	if inPlace(l.place.file, l.place.path) {
		if err = os.Remove(l.place.path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err = errors.Join(err, l.place.file.Close()); err != nil {
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "deregister (the worker counts as dead nevertheless)", Err: err}
	}
	return nil
}
