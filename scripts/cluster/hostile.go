package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// hostilePeers sends garbage to the workers' rpc ports, and opens many
// connections that say nothing.
func hostilePeers(ctx context.Context, t *trial) error {
	const garbage, silent, memoryMore = 400, 10_000, 64 << 20
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f := t.mark(ctx)
	before, err := c.workerMemory("VmRSS")
	if err != nil {
		return err
	}
	sent := t.garbage(garbage)
	t.check("garbage at the rpc ports: workers live", errors.Join(c.found(ctx, c.workers...), c.lives()), "connections=%d bytes=%d", garbage, sent)
	open := t.silence(ctx, silent)
	f3, err := c.startFrontend()
	if err == nil {
		err = errors.Join(c.frontendReady(ctx, f3), c.found(ctx, c.workers...))
	}
	t.check("connects without hello: a new frontend gets through", err, "connects=%d", len(open))
	peak, err := c.workerMemory("VmHWM")
	if err == nil && peak > before+memoryMore {
		err = fmt.Errorf("more than %d MiB above what it was", memoryMore>>20)
	}
	t.check("memory of the workers is bounded", err, "largest worker before=%d MiB peak=%d MiB", before>>20, peak>>20)
	for _, conn := range open {
		conn.Close()
	}
	if err := sleep(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	t.verdict(ctx, "garbage and connects without hello", l, manyStreams, f)
	return nil
}

// workerMemory is a field of /proc/PID/status of the worker that has most.
func (c *cluster) workerMemory(field string) (most int64, err error) {
	for _, w := range c.workers {
		n, err := w.memory(field)
		if err != nil {
			return 0, err
		}
		most = max(most, n)
	}
	return most, nil
}

// lives says which worker has ended.
func (c *cluster) lives() error {
	var errs []error
	for _, w := range c.workers {
		if !w.running() {
			errs = append(errs, fmt.Errorf("%s ended: %s", w.name, w.tail()))
		}
	}
	return errors.Join(errs...)
}

// sockets lists the addresses of all workers.
func (c *cluster) sockets() (all []net.Addr) {
	for _, w := range c.workers {
		if a, err := net.ResolveTCPAddr("tcp", w.rpc); err == nil {
			all = append(all, a)
		}
	}
	paths, _ := filepath.Glob(filepath.Join(c.run, "*.sock")) // the pattern is well formed
	for _, p := range paths {
		all = append(all, &net.UnixAddr{Name: p, Net: "unix"})
	}
	return all
}

// garbage sends n times what is no hello, and returns how many bytes were taken.
func (t *trial) garbage(n int) (sent int64) {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	beginnings := [][]byte{
		nil,
		bytes.Repeat([]byte{0xff}, 64),
		bytes.Repeat([]byte{0}, 64),
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, // a TLS hello
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
	}
	all := t.cluster.sockets()
	for i := range n {
		to := all[i%len(all)]
		conn, err := net.DialTimeout(to.Network(), to.String(), time.Second)
		if err != nil {
			continue // a full backlog is a defence too
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		for _, b := range [][]byte{beginnings[i%len(beginnings)], noise[random.IntN(len(noise)/2):]} {
			n, err := conn.Write(b)
			sent += int64(n)
			if err != nil {
				break // it has hung up
			}
		}
		conn.Close()
	}
	return sent
}

// silence opens n connections that say nothing, and returns those that were
// taken.
func (t *trial) silence(ctx context.Context, n int) []net.Conn {
	const dialers = 64
	all := t.cluster.sockets()
	var mu sync.Mutex
	var open []net.Conn
	var dialing sync.WaitGroup
	for d := range dialers {
		dialing.Go(func() {
			for i := d; i < n && ctx.Err() == nil; i += dialers {
				to := all[i%len(all)]
				conn, err := net.DialTimeout(to.Network(), to.String(), time.Second)
				if err != nil {
					continue // refused: that is the limit we are looking for
				}
				mu.Lock()
				open = append(open, conn)
				mu.Unlock()
			}
		})
	}
	dialing.Wait()
	return open
}

// foreignEntries puts into the store what is no instance, and one of a later
// version.
func foreignEntries(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f := t.mark(ctx)
	const ghost = "dd00000000000f44"
	put := t.foreignFiles
	if t.store == storeEtcd {
		put = t.foreignKeys
	}
	n, remove, err := put(ctx, c.workers[0].id, ghost)
	if err != nil {
		return err
	}
	defer remove()
	if err := sleep(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	_, out, err := c.status(ctx)
	if said := out.stderr; err == nil && (!strings.Contains(said, ghost) || !strings.Contains(said, "format")) {
		err = fmt.Errorf("dynamo status says nothing of an entry of a later format: %q", said)
	}
	t.check("entries of the store that are no instances are reported", errors.Join(err, t.reportedOnce(ghost)), "entries=%d", n)
	w, err := c.addWorker(ctx, c.newID())
	if err == nil {
		err = c.serves(ctx, w)
	}
	t.check("workers are found beside them", err, "")
	t.verdict(ctx, "foreign entries and later formats in the store", l, manyStreams, f)
	return nil
}

// reportedOnce checks that each frontend's log tells of the entry, and not again
// and again.
func (t *trial) reportedOnce(ghost string) error {
	for _, f := range t.cluster.frontends {
		n := 0
		for line := range strings.Lines(f.text()) {
			if strings.Contains(line, ghost) {
				n++
			}
		}
		if n == 0 || n > 3 {
			return fmt.Errorf("%s has %d lines about worker %s, want one", f.name, n, ghost)
		}
	}
	return nil
}

// later turns an instance into one of another worker and a later format.
func later(b []byte, id, ghost string) []byte {
	b = bytes.ReplaceAll(b, []byte(id), []byte(ghost))
	return bytes.Replace(b, []byte(`"format":1`), []byte(`"format":99`), 1)
}

// foreignFiles writes beside a worker's file. The file of the later version is
// locked, as that of a process that lives.
func (t *trial) foreignFiles(_ context.Context, id, ghost string) (n int, remove func(), err error) {
	remove = func() {}
	root, like := strings.TrimPrefix(t.cluster.store.backend(), "file:"), ""
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, id) && filepath.Ext(path) != ".sock" {
			like = path
		}
		return err
	})
	if like == "" {
		return 0, remove, errors.Join(err, fmt.Errorf("no file below %s is named for worker %s", root, id))
	}
	b, err := os.ReadFile(like)
	if err != nil {
		return 0, remove, err
	}
	dir, name := filepath.Split(like)
	noise := bytes.Repeat([]byte{0x7b, 0, 0xff, 'x'}, 600<<10)
	for path, data := range map[string][]byte{
		filepath.Join(dir, "notes.txt"):                                      []byte("buy milk\n"),
		filepath.Join(dir, strings.ReplaceAll(name, id, "dd00000000000f45")): nil,
		filepath.Join(dir, strings.ReplaceAll(name, id, "dd00000000000f46")): []byte("{\"format\":"),
		filepath.Join(dir, strings.ReplaceAll(name, id, "dd00000000000f47")): noise,
		filepath.Join(dir, strings.ReplaceAll(name, id, "not-an-id")):        b,
		filepath.Join(dir, strings.ReplaceAll(name, id, ghost)):              later(b, id, ghost),
		filepath.Join(dir, strings.ReplaceAll(name, id, "dd00000000000f48")): b, // the contents name another worker
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return n, remove, err
		}
		n++
	}
	if err := os.Mkdir(filepath.Join(dir, strings.ReplaceAll(name, id, "dd00000000000f49")), 0o700); err != nil {
		return n, remove, err
	}
	held, err := os.OpenFile(filepath.Join(dir, strings.ReplaceAll(name, id, ghost)), os.O_RDWR, 0)
	if err != nil {
		return n, remove, err
	}
	return n + 1, func() { held.Close() }, hold(held)
}

// foreignKeys writes beside a worker's key.
func (t *trial) foreignKeys(ctx context.Context, id, ghost string) (n int, remove func(), err error) {
	remove = func() {}
	endpoint := "http://" + strings.TrimPrefix(t.cluster.store.backend(), "etcd://")
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: commandTimeout})
	if err != nil {
		return 0, remove, err
	}
	defer client.Close()
	all, err := client.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		return 0, remove, err
	}
	for _, kv := range all.Kvs {
		key := string(kv.Key)
		if !strings.Contains(key, id) {
			continue
		}
		for k, v := range map[string][]byte{
			strings.ReplaceAll(key, id, "notes"):            []byte("buy milk"),
			strings.ReplaceAll(key, id, "dd00000000000f45"): nil,
			strings.ReplaceAll(key, id, "dd00000000000f46"): []byte("{\"format\":"),
			strings.ReplaceAll(key, id, ghost):              later(kv.Value, id, ghost),
			strings.ReplaceAll(key, id, "dd00000000000f48"): kv.Value,
		} {
			if _, err := client.Put(ctx, k, string(v)); err != nil {
				return n, remove, err
			}
			n++
		}
	}
	if n == 0 {
		return 0, remove, fmt.Errorf("none of %d keys is named for worker %s", len(all.Kvs), id)
	}
	return n, remove, nil
}
