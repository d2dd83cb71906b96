package node

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/worker"
)

// look opens the cluster as a person does.
func (b *bubble) look(edit func(*Config)) *Cluster {
	b.t.Helper()
	c := DefaultConfig()
	c.Cluster.Store, c.Cluster.Dial, c.Cluster.KeyFile = b.store.Handle(), b.net.Host("person").Dial, b.key
	if edit != nil {
		edit(&c)
	}
	v, err := OpenCluster(c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := v.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return v
}

// withID gives a worker a name.
func withID(id dynamo.WorkerID) func(*Config) {
	return func(c *Config) { c.Worker.ID = id }
}

// Workers lists who is there, with what each says of itself or why it does not.
func TestClusterWorkers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		v := b.look(nil)
		if all, problems, err := v.Workers(t.Context()); err != nil || len(all)+len(problems) != 0 {
			t.Errorf("an empty cluster: %v, %v, %v", all, problems, err)
		}
		b.start("w1", nil)
		b.start("w2", func(c *Config) { c.ContextLength = 512; c.Worker.Labels = map[string]string{"zone": "a"} })
		w3 := b.start("w3", nil)
		w3.kill()
		time.Sleep(time.Second)
		began := time.Now()
		all, problems, err := v.Workers(t.Context())
		if err != nil || len(problems) != 0 || len(all) != 3 {
			t.Fatalf("got %v, %v, %v", all, problems, err)
		}
		if took := time.Since(began); took > statusTimeout+100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		for i, w := range all[:2] {
			s := w.Status
			if w.Err != nil || s.State != worker.StateReady || s.Model != "m" || s.Worker != w.Instance.ID.String() || !s.Registered || s.Version != "test" || s.UptimeSeconds < 1 || w.Instance.ID != dynamo.WorkerID(i+1) {
				t.Errorf("w%d: %+v, %v", i+1, s, w.Err)
			}
		}
		if c := all[1].Instance.Card; c.ContextLength != 512 || c.Labels["zone"] != "a" {
			t.Errorf("the card of w2: %+v", c)
		}
		if w := all[2]; w.Err == nil || w.Instance.ID != 3 || !strings.Contains(w.Err.Error(), "w3") && !strings.Contains(w.Err.Error(), "0000000000000003") {
			t.Errorf("the killed worker: %+v, %v", w.Status, w.Err)
		}

		b.store.SetDown(true)
		if _, _, err := v.Workers(t.Context()); dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "--discovery-backend") {
			t.Errorf("without a store: %v", err)
		}
		b.store.SetDown(false)
		if all, _, err = b.look(func(c *Config) { c.Cluster.Namespace = "other" }).Workers(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("another namespace: %v, %v", all, err)
		}
		if all, _, err = b.look(func(c *Config) { c.Cluster.KeyFile = otherKey(t) }).Workers(t.Context()); err != nil || len(all) != 3 || all[0].Err == nil || !strings.Contains(all[0].Err.Error(), "--cluster-key-file") {
			t.Errorf("with another key: %v, %v", all, err)
		}
	})
}

func otherKey(t *testing.T) string { return keyFile(t, "a5") }

// Drain finds a worker by what a person would write of its name.
func TestClusterDrain(t *testing.T) {
	const one, two, three, four = 0xab00000000000001, 0xab00000000000002, 0xcd, 0xcd00000000000000
	inBubble(t, func(t *testing.T, b *bubble) {
		procs := map[dynamo.WorkerID]*proc{}
		for host, id := range map[string]dynamo.WorkerID{"w1": one, "w2": two, "w3": three, "w4": four} {
			procs[id] = b.start(host, withID(id))
		}
		v := b.look(nil)
		for _, tc := range []struct {
			name string
			kind dynamo.Kind
			say  string
		}{
			{"ab", dynamo.KindInvalid, "2 workers' names"}, {"ab0000000000000", dynamo.KindInvalid, "give more"}, {"ff", dynamo.KindNotFound, "dynamo status"},
			{"xyz", dynamo.KindNotFound, "xyz"}, {"", dynamo.KindInvalid, "4 workers"},
		} {
			if id, err := v.Drain(t.Context(), tc.name); id != 0 || dynamo.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%q: got %v, %v", tc.name, id, err)
			}
		}
		for _, tc := range []struct {
			name string
			want dynamo.WorkerID
		}{{"cd", three}, {"CD0", four}, {"AB00000000000001", one}, {"ab", two}} {
			id, err := v.Drain(t.Context(), tc.name)
			if err != nil || id != tc.want {
				t.Fatalf("%q: got %v, %v; want %v", tc.name, id, err, tc.want)
			}
			<-procs[id].done
			if procs[id].err != nil {
				t.Errorf("%q: Run: %v", tc.name, procs[id].err)
			}
		}
		if all, _, err := v.Workers(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("left are %v, %v", all, err)
		}
	})
	inBubble(t, func(t *testing.T, b *bubble) {
		for _, name := range []string{"00000000000000cd", "00cd", "00"} {
			p := b.start("w1", withID(three))
			if id, err := b.look(nil).Drain(t.Context(), name); err != nil || id != three {
				t.Errorf("%q: got %v, %v", name, id, err)
			}
			p.end()
		}
	})
}

// A drain lets the answer in progress end, and who asked for it is told when the
// worker has left the store; a worker that does not answer is said so.
func TestDrainDuringAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", func(c *Config) { c.Cluster.WorkerWait = time.Second })
		w := b.start("w1", func(c *Config) { c.EchoITL, c.DrainTimeout = 10*time.Millisecond, time.Minute })
		b.awaitModels("front", "m")
		answered := make(chan string)
		go func() {
			_, text := b.complete("front", "m", "abc", 300)
			answered <- text
		}()
		time.Sleep(time.Second)
		v := b.look(nil)
		if _, err := v.Drain(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		if all, _, err := v.Workers(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("the store has %v, %v", all, err)
		}
		if text := <-answered; text != strings.Repeat("abc", 100) {
			t.Errorf("the answer is %q", text)
		}
		<-w.done

		b.start("w2", nil)
		b.net.Pause("w2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if id, err := v.Drain(ctx, "2"); id != 2 || err == nil || time.Since(began) > 2*statusTimeout {
			t.Errorf("a worker that hangs: %v, %v after %v", id, err, time.Since(began))
		}
		b.net.Resume("w2")
		synctest.Wait()
	})
}
