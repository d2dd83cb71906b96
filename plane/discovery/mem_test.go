package discovery_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/discoverytest"
)

func TestMem(t *testing.T) {
	discoverytest.Run(t, func(t *testing.T) discoverytest.Fixture {
		m := discovery.NewMem()
		second := m.Handle()
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if err := second.Close(); err != nil {
				t.Error(err)
			}
		})
		return discoverytest.Fixture{
			Store: m, Second: second,
			Abandon: func(_ discovery.Registration, i discovery.Instance) { m.Expire(i.ID) },
			Break:   func() { m.SetDown(true) }, Mend: func() { m.SetDown(false) },
		}
	})
}

func TestMemInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := discovery.NewMem()
		ctx, cancel := context.WithCancel(t.Context())
		seen := make(chan discovery.Update, 16)
		go func() { // ends with ctx
			for u := range m.Handle().Watch(ctx, discovery.Path{}) {
				seen <- u
			}
			close(seen)
		}()
		synctest.Wait()
		if _, err := m.Register(ctx, discoverytest.Instance(1, 1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.SetDown(true)
		synctest.Wait()
		cancel()
		var kinds []discovery.Kind
		for u := range seen {
			kinds = append(kinds, u.Kind)
		}
		if len(kinds) != 3 || kinds[0] != discovery.Snapshot || kinds[1] != discovery.Put || kinds[2] != discovery.Stale {
			t.Errorf("got %v", kinds)
		}
	})
}

func TestOpenMem(t *testing.T) {
	a, err := discovery.Open("mem", discovery.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := discovery.Open("mem", discovery.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := a.Register(t.Context(), discoverytest.Instance(1, 1)); err != nil {
		t.Fatal(err)
	}
	for u := range b.Watch(t.Context(), discovery.Path{}) {
		if len(u.Instances) != 1 {
			t.Errorf("the stores of one process differ: %v", u)
		}
		break
	}
}
