package etcd

import (
	"time"

	"github.com/dynamo-go/dynamo/plane/discovery"
)

// SetPatience has calls fail after d instead of openMax when etcd is away.
func (s *Store) SetPatience(d time.Duration) { s.patience = d }

// Abandon stops keeping a registration, as the death of its process does.
func Abandon(r discovery.Registration) {
	d := r.(*registration)
	d.cancel()
	<-d.done
}

// ParseName is parseName for its tests.
func ParseName(name string) (endpoints []string, user, password string, err error) {
	t, err := parseName(name)
	if err != nil {
		return nil, "", "", err
	}
	return t.endpoints(), t.user, t.password, nil
}
