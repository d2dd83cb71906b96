package etcd_test

import (
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/discoverytest"
	"github.com/dynamo-go/dynamo/plane/discovery/etcd"
)

// ttl leaves a loaded machine more than a second to renew a lease.
const ttl = 2 * time.Second

func config() discovery.Config {
	c := discovery.DefaultConfig()
	c.TTL = ttl
	return c
}

// open opens a store that ends with the test.
func open(t *testing.T, name string) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(name, config())
	if err != nil {
		t.Fatal(err)
	}
	s.SetPatience(time.Second)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	discoverytest.Run(t, func(t *testing.T) discoverytest.Fixture {
		s := start(t)
		breaks := 0
		return discoverytest.Fixture{
			Store: open(t, s.name()), Second: open(t, s.name()),
			Abandon: func(r discovery.Registration, _ discovery.Instance) { etcd.Abandon(r) },
			Break:   s.kill,
			Mend: func() {
				if breaks++; breaks%2 == 0 {
					s.wipe() // everybody registers again
				}
				s.begin()
			},
			TTL: 2 * ttl, // etcd may restart meanwhile, which gives leases their whole time again
		}
	})
}
