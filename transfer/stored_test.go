package transfer_test

import (
	"bytes"
	"cmp"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
	"github.com/dynamo-go/dynamo/transfer/transfertest"
)

func TestFile(t *testing.T) {
	transfertest.Run(t, func(t *testing.T) *transfertest.Pair { return filePair(t) })
}

// filePair makes two agents of a process, the memories of the second of which are
// files.
func filePair(t testing.TB) *transfertest.Pair {
	p := pair(t, transfer.PathLocal, nil)
	p.Path = transfer.PathFile
	paths := map[*transfer.Memory]string{}
	p.Memory = func(t testing.TB, a *transfer.Agent, s transfer.Section, bytes int64) *transfer.Memory {
		if a == p.A {
			return memory(t, a, s, bytes)
		}
		path := filepath.Join(t.TempDir(), s.Name)
		s.File = openFile(t, path, bytes)
		m := register(t, a, s)
		paths[m] = path
		return m
	}
	p.View = func(m *transfer.Memory) []byte { return content(t, paths[m]) }
	p.Set = func(m *transfer.Memory, b []byte) { change(t, paths[m], b) }
	return p
}

func openFile(t testing.TB, path string, bytes int64) *transfer.File {
	t.Helper()
	f, err := transfer.OpenFile(path, bytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func register(t testing.TB, a *transfer.Agent, s transfer.Section) *transfer.Memory {
	t.Helper()
	m, err := a.Register(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func content(t testing.TB, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// change writes the beginning of a file.
func change(t testing.TB, path string, b []byte) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

// bucket is a store of objects in memory: those of one memory lie side by side.
type bucket struct {
	page, size int64
	fault      func(b []byte) error // of a Get, after it

	mu struct {
		sync.Mutex
		data  []byte
		there map[int64]bool
	}
}

func newBucket(page, size int64) *bucket {
	k := &bucket{page: page, size: size}
	k.mu.data, k.mu.there = make([]byte, size), map[int64]bool{}
	return k
}

// at finds the page of a name; nil if the name is none.
func (k *bucket) at(name string) (n int64, data []byte) {
	_, number, _ := strings.Cut(name, "/")
	n, err := strconv.ParseInt(number, 16, 64)
	if err != nil || len(number) != 8 {
		return 0, nil
	}
	return n, k.mu.data[n*k.page : min((n+1)*k.page, k.size)]
}

func (k *bucket) Get(_ context.Context, name string, b []byte, offset int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, o := k.at(name)
	switch {
	case !k.mu.there[n]:
		return &dynamo.Error{Kind: dynamo.KindNotFound, Message: "no such object"}
	case offset+int64(len(b)) > int64(len(o)):
		return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "too short"}
	}
	copy(b, o[offset:])
	if k.fault != nil {
		return k.fault(b)
	}
	return nil
}

func (k *bucket) Put(_ context.Context, name string, b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	n, o := k.at(name)
	if len(b) != len(o) {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "this is no page"}
	}
	copy(o, b)
	k.mu.there[n] = true
	return nil
}

// view is all there is.
func (k *bucket) view() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.mu.data)
}

// set replaces the beginning, and makes all objects.
func (k *bucket) set(b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	copy(k.mu.data, b)
	for at := int64(0); at < k.size; at += k.page {
		k.mu.there[at/k.page] = true
	}
}

func TestObjects(t *testing.T) {
	transfertest.Run(t, func(t *testing.T) *transfertest.Pair {
		p := pair(t, transfer.PathLocal, nil)
		p.Path = transfer.PathObject
		stores := map[*transfer.Memory]*bucket{}
		p.Memory = func(t testing.TB, a *transfer.Agent, s transfer.Section, bytes int64) *transfer.Memory {
			if a == p.A {
				return memory(t, a, s, bytes)
			}
			k := newBucket(cmp.Or(s.PageBytes, transfer.DefaultPageBytes), bytes)
			s.Objects, s.Size = k, bytes
			m := register(t, a, s)
			stores[m] = k
			return m
		}
		p.View = func(m *transfer.Memory) []byte { return stores[m].view() }
		p.Set = func(m *transfer.Memory, b []byte) { stores[m].set(b) }
		return p
	})
}

// TestWholeObjects: a page that is written as a whole, from however many places, is
// put once and not read before.
func TestWholeObjects(t *testing.T) {
	const page = 3 << 20
	a, _ := start(t, config(t, "worker-1", transfer.PathLocal, nil, ""))
	k := newBucket(page, 4*page)
	k.fault = func([]byte) error { return &dynamo.Error{Kind: dynamo.KindInternal, Message: "read"} }
	own := memory(t, a, transfer.Section{Name: "own"}, 2*page)
	far := register(t, a, transfer.Section{Name: "far", Objects: k, Size: 4 * page, PageBytes: page, Access: transfer.AccessWrite})
	k.set(nil) // all are there, and reading them fails
	pattern(own.Bytes(), 3)
	var local, remote []transfer.Descriptor
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(8) {
		at := int64(i) * page / 4
		local = append(local, own.At(at, page/4))
		remote = append(remote, far.At(page+int64(len(local)-1)*page/4, page/4))
	}
	if err := post(t, a, transfer.Write, local, remote, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	got := k.view()
	for i := range local {
		if !bytes.Equal(got[remote[i].Offset:][:page/4], own.Bytes()[local[i].Offset:][:page/4]) {
			t.Errorf("part %d is not what it should be", i)
		}
	}
	k.fault = nil
	clear(own.Bytes())
	if err := post(t, a, transfer.Read, local[:3], remote[:3], transfer.Options{}); err != nil || !bytes.Equal(own.Bytes()[local[2].Offset:][:page/4], got[remote[2].Offset:][:page/4]) {
		t.Errorf("read them: %v", err)
	}
}

// post moves between memories of one agent.
func post(t *testing.T, a *transfer.Agent, op transfer.Op, local, remote []transfer.Descriptor, o transfer.Options) error {
	t.Helper()
	p, err := a.Import(a.Export())
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Prepare(p, local, remote)
	if err != nil {
		t.Fatal(err)
	}
	x, err := a.Post(l, op, o)
	if err != nil {
		return err
	}
	return x.Wait(t.Context())
}

// TestFileHere: the file is this side's, and the memory the peer's: lent, and
// refused where it is not.
func TestFileHere(t *testing.T) {
	for _, name := range []string{"direct", "plain"} {
		t.Run(name, func(t *testing.T) { testFileHere(t, name == "direct") })
	}
}

func testFileHere(t *testing.T, direct bool) {
	const size, page = 3<<20 + 5, 4 << 10
	p := pair(t, transfer.PathLocal, nil)
	path := filepath.Join(t.TempDir(), "pool")
	file := openFile(t, path, size)
	if !direct {
		transfer.RefuseDirect(file)
	}
	f := register(t, p.A, transfer.Section{Name: "pool", File: file})
	m := memory(t, p.B, transfer.Section{Name: "kv", PageBytes: page}, size)
	lease, err := m.Lend(transfer.Range{Length: size}, true, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	move := func(op transfer.Op, local, remote []transfer.Descriptor) error {
		l, err := p.A.Prepare(peer, local, remote)
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.A.Post(l, op, transfer.Options{Checksum: true})
		if err != nil {
			t.Fatal(err)
		}
		return x.Wait(t.Context())
	}
	pattern(m.Bytes(), 1)
	var local, remote []transfer.Descriptor
	r := rand.New(rand.NewPCG(2, 2))
	const n = 300
	for i := range int64(n) {
		length := 1 + r.Int64N(size/n)
		local, remote = append(local, f.At((n-1-i)*(size/n), length)), append(remote, lease.At(i*(size/n), length))
	}
	local, remote = append(local, f.At(size-5, 5)), append(remote, lease.At(size-5, 5))
	if err := move(transfer.Read, local, remote); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	for i := range local {
		copy(want[local[i].Offset:], m.Bytes()[remote[i].Offset:][:remote[i].Length])
	}
	if !bytes.Equal(content(t, path), want) {
		t.Error("the file is not what it should be")
	}
	want = bytes.Clone(m.Bytes())
	clear(m.Bytes()[:size-5])
	have := content(t, path)
	for i := range local {
		clear(want[int64(i)*(size/n) : min(int64(i+1)*(size/n), size-5)])
		copy(want[remote[i].Offset:], have[local[i].Offset:][:local[i].Length])
	}
	clear(want[n*(size/n) : size-5])
	if err := move(transfer.Write, local, remote); err != nil || !bytes.Equal(m.Bytes(), want) {
		t.Errorf("the peer's memory is not what it should be; %v", err)
	}
	lease.Revoke()
	<-lease.Done()
	if err := move(transfer.Read, local, remote); code(err) != transfer.CodeFenced {
		t.Errorf("a read after the lease: %v", err)
	}
}

func code(err error) string {
	if e, ok := err.(*dynamo.Error); ok {
		return e.Code
	}
	return ""
}

// TestStoredFaults: a store that fails or lies ends the transfer, with what to do.
func TestStoredFaults(t *testing.T) {
	const size = 1 << 20
	a, _ := start(t, config(t, "worker-1", transfer.PathLocal, nil, ""))
	own := memory(t, a, transfer.Section{Name: "own"}, size)
	path := filepath.Join(t.TempDir(), "pool")
	file := register(t, a, transfer.Section{Name: "pool", File: openFile(t, path, size), Access: transfer.AccessWrite})
	k := newBucket(transfer.DefaultPageBytes, size)
	far := register(t, a, transfer.Section{Name: "far", Objects: k, Size: size, Access: transfer.AccessWrite})
	k.set(nil)
	refused := &dynamo.Error{Kind: dynamo.KindExhausted, Message: "slow down"}
	for _, c := range []struct {
		what  string
		to    *transfer.Memory
		op    transfer.Op
		cause func()
		kind  dynamo.Kind
		code  string
	}{
		{"a file that was cut", file, transfer.Read, func() { must(t, os.Truncate(path, size/2)) }, dynamo.KindCorrupt, transfer.CodeMedium},
		{"a store that fails", far, transfer.Read, func() { k.fault = func([]byte) error { return refused } }, dynamo.KindExhausted, transfer.CodeMedium},
		{"a store that lies at times", far, transfer.Read, func() {
			once := byte(1)
			k.fault = func(b []byte) error { b[7] ^= once; once = 0; return nil }
		}, dynamo.KindCorrupt, transfer.CodeChecksum},
		{"a store that lies", far, transfer.Write, func() {
			k.fault = func(b []byte) error { b[7]++; return nil }
		}, dynamo.KindCorrupt, transfer.CodeChecksum},
	} {
		c.cause()
		err := post(t, a, c.op, []transfer.Descriptor{own.At(0, size)}, []transfer.Descriptor{c.to.At(0, size)}, transfer.Options{Checksum: true})
		if err == nil || dynamo.KindOf(err) != c.kind || code(err) != c.code {
			t.Errorf("%s: %v (%s), want %s (%s)", c.what, err, code(err), c.kind, c.code)
		}
	}
	k.fault = nil
	if err := post(t, a, transfer.Write, []transfer.Descriptor{own.At(0, size)}, []transfer.Descriptor{far.At(0, size)}, transfer.Options{Checksum: true}); err != nil {
		t.Errorf("after the faults: %v", err)
	}
	if _, err := transfer.OpenFile(filepath.Join(t.TempDir(), "huge"), 1<<50); dynamo.KindOf(err) != dynamo.KindExhausted {
		t.Errorf("a file of a pebibyte: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStoredRefused: sections that cannot be, and peers that cannot reach them.
func TestStoredRefused(t *testing.T) {
	p := pair(t, transfer.PathTCP, nil)
	f := openFile(t, filepath.Join(t.TempDir(), "pool"), 1<<20)
	for _, s := range []transfer.Section{
		{Name: "two", File: f, Bytes: make([]byte, 10)},
		{Name: "two", File: f, Objects: newBucket(1, 1), Size: 10},
		{Name: "none", Objects: newBucket(1, 1)},
		{Name: "large", Objects: newBucket(1, 1), Size: 1 << 40, PageBytes: 1 << 40},
	} {
		if _, err := p.B.Register(s); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("section %+v: %v", s, err)
		}
	}
	if _, err := transfer.OpenFile(filepath.Join(t.TempDir(), "empty"), 0); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("a file of no bytes: %v", err)
	}
	register(t, p.B, transfer.Section{Name: "pool", File: f, Access: transfer.AccessWrite})
	own := memory(t, p.A, transfer.Section{Name: "own"}, 1<<20)
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	far, _ := peer.Memory("pool")
	for _, n := range []int64{8, 1 << 20} {
		l, err := p.A.Prepare(peer, []transfer.Descriptor{own.At(0, n)}, []transfer.Descriptor{far.At(0, n)})
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.A.Post(l, transfer.Write, transfer.Options{})
		if err == nil {
			err = x.Wait(t.Context())
		}
		if dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("a file of another process: %v", err)
		}
	}
}
