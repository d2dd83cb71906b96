package hub

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"
)

// progress adds up bytes and tells them at a bounded rate.
type progress struct {
	hub         *Hub
	kind        EventKind
	ref, source string
	total       int64
	mu          struct {
		sync.Mutex
		done int64
		told time.Time
	}
}

// add counts n more bytes; a negative n takes back bytes that have to come
// again.
func (p *progress) add(n int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.mu.done += n
	done, now := p.mu.done, time.Now()
	tell := now.Sub(p.mu.told) >= progressEvery
	if tell {
		p.mu.told = now
	}
	p.mu.Unlock()
	if tell {
		p.tell(done)
	}
}

func (p *progress) flush() {
	p.mu.Lock()
	done := p.mu.done
	p.mu.Unlock()
	p.tell(done)
}

func (p *progress) tell(done int64) {
	p.hub.emit(Event{Kind: p.kind, Ref: p.ref, Source: p.source, Done: done, Total: p.total})
}

// hashFile returns the hexadecimal digest of a file.
func hashFile(ctx context.Context, path string, d hash.Hash, p *progress) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("hash the file: %w", err)
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := f.Read(buf)
		d.Write(buf[:n]) // a hash never fails
		p.add(int64(n))
		if err == io.EOF {
			return hex.EncodeToString(d.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("hash %s: %w", path, err)
		}
	}
}
