package router

import (
	"reflect"

	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router/placement"
)

// kinds are the distinct cards of the workers, adapters aside: engines of the same
// weights may serve one name, and what one of them can do another cannot. A set of
// one kind costs a request nothing: the engine itself says what it refuses.
type kinds struct {
	list    []kind
	used    int    // of list
	changes uint64 // of list
}

// kind is a card that n workers have; its place is free when there are none.
type kind struct {
	card engine.Card
	n    int
}

// add returns the number of a card's kind.
func (k *kinds) add(card engine.Card) int {
	card.Adapters = nil
	free := len(k.list)
	for i := range k.list {
		switch {
		case k.list[i].n == 0:
			free = i
		case reflect.DeepEqual(k.list[i].card, card):
			k.list[i].n++
			return i
		}
	}
	if free == len(k.list) {
		k.list = append(k.list, kind{})
	}
	k.list[free] = kind{card, 1}
	k.used++
	k.changes++
	return free
}

func (k *kinds) drop(i int) {
	if k.list[i].n--; k.list[i].n == 0 {
		k.used--
		k.changes++
	}
}

// The parts of a rank: an answer goes on in the arithmetic it began in, if it can,
// and where there is room for all of it before that.
const (
	rankOther placement.Rank = 1
	rankShort placement.Rank = 2
)

// rank says how well each kind suits c; nil: all alike. It is found out once, and
// again when the kinds have changed: requests that wait are looked at often. What
// keeps the last of them from it is noted in c.
func (k *kinds) rank(c *call) []placement.Rank {
	if k.used < 2 && c.begun == nil {
		return nil
	}
	if c.ranked == k.changes && c.ranks != nil {
		return c.ranks
	}
	c.ranked, c.unable = k.changes, nil
	if c.ranks == nil {
		c.ranks = c.rankRoom[:0]
	}
	c.ranks = c.ranks[:0]
	longest := 0
	for i := range k.list {
		kd := &k.list[i]
		rank := placement.Rank(0)
		switch {
		case kd.n == 0:
			rank = placement.Unable
		case !engine.GoesOn(c.begun, &kd.card, c.q):
			rank = placement.Unable
		case k.used > 1:
			if err := engine.Able(&kd.card, c.q); err != nil {
				rank, c.unable = placement.Unable, err
			}
		}
		if rank == 0 {
			longest = max(longest, kd.card.ContextLength)
			if c.begun != nil && !engine.SameArithmetic(c.begun, &kd.card) {
				rank = rankOther
			}
		}
		c.ranks = append(c.ranks, rank)
	}
	need := min(len(c.q.Tokens)+c.q.MaxTokens, longest)
	for i := range k.list {
		if c.ranks[i] != placement.Unable && k.list[i].card.ContextLength < need {
			c.ranks[i] += rankShort
		}
	}
	return c.ranks
}

// able reports whether any worker, in whatever state, can serve what ranks are for.
func (k *kinds) able(ranks []placement.Rank) bool {
	for _, rank := range ranks {
		if rank != placement.Unable {
			return true
		}
	}
	return ranks == nil
}

// refusal is the error of a request that no worker could serve whatever its kind: it
// is the request's own. nil: it is for want of a worker that can do all of it.
func (k *kinds) refusal(c *call) error {
	if c.begun != nil {
		return nil
	}
	var cards []*engine.Card
	for i := range k.list {
		if k.list[i].n > 0 {
			cards = append(cards, &k.list[i].card)
		}
	}
	all := engine.Union(cards...)
	return engine.Able(&all, c.q)
}
