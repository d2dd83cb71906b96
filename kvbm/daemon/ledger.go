package daemon

import (
	"container/list"
	"slices"
	"strings"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// ledger knows which client has put which of the blocks that are kept. Blocks from
// before a restart are nobody's until somebody puts them again.
type ledger struct {
	quota int // of a client, in blocks; 0: no bound
	mu    struct {
		sync.Mutex
		held     map[dynamo.BlockHash]*holding
		accounts map[string]*account
	}
}

// account is the clients of one name.
type account struct {
	name        string
	connections int
	order       *list.List // of *holding, those put last in front
}

// holding is a block of an account.
type holding struct {
	key    dynamo.ContentKey
	hash   dynamo.BlockHash
	owner  *account
	copies int // in how many tiers it is
	place  *list.Element
}

func newLedger(quota int) *ledger {
	l := &ledger{quota: quota}
	l.mu.held, l.mu.accounts = map[dynamo.BlockHash]*holding{}, map[string]*account{}
	return l
}

// enter notes a connection of a client, and leave its end.
func (l *ledger) enter(name string) *account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.mu.accounts[name]
	if a == nil {
		a = &account{name: name, order: list.New()}
		l.mu.accounts[name] = a
	}
	a.connections++
	return a
}

func (l *ledger) leave(a *account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.connections--
	l.forgetLocked(a)
}

// forgetLocked ends an account that has nothing.
func (l *ledger) forgetLocked(a *account) {
	if a.connections == 0 && a.order.Len() == 0 {
		delete(l.mu.accounts, a.name)
	}
}

// charge puts a block on an account, unless another has it, and returns the blocks that
// the account has to give up for it.
func (l *ledger) charge(a *account, b *kvbm.TierBlock) (over []dynamo.ContentKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.mu.held[b.Block.Hash]; h != nil {
		if h.owner == a {
			a.order.MoveToFront(h.place)
		}
		return nil
	}
	h := &holding{key: b.Key, hash: b.Block.Hash, owner: a}
	h.place = a.order.PushFront(h)
	l.mu.held[h.hash] = h
	for n := a.order.Len(); l.quota > 0 && n > l.quota; n-- {
		last := a.order.Back().Value.(*holding)
		over = append(over, last.key)
		l.removeLocked(last)
	}
	return over
}

// refuse takes a block off again that no tier has taken.
func (l *ledger) refuse(b *kvbm.TierBlock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.mu.held[b.Block.Hash]; h != nil && h.copies == 0 {
		l.removeLocked(h)
	}
}

func (l *ledger) removeLocked(h *holding) {
	delete(l.mu.held, h.hash)
	h.owner.order.Remove(h.place)
	l.forgetLocked(h.owner)
}

// changed follows the copies in the tiers; it is tier.Config.Events.
func (l *ledger) changed(_ dynamo.Tier, events []kvbm.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		e := &events[i]
		for j := range e.Blocks {
			if h := l.mu.held[e.Blocks[j].Hash]; h != nil && e.Kind == kvbm.Stored {
				h.copies++
			}
		}
		for _, hash := range e.Hashes {
			h := l.mu.held[hash]
			if h == nil {
				continue
			}
			if h.copies--; h.copies <= 0 {
				l.removeLocked(h)
			}
		}
	}
}

// clients lists the accounts by name.
func (l *ledger) clients() (all []ClientReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.mu.accounts {
		all = append(all, ClientReport{Name: a.name, Connections: a.connections, Blocks: a.order.Len()})
	}
	slices.SortFunc(all, func(a, b ClientReport) int { return strings.Compare(a.Name, b.Name) })
	return all
}
