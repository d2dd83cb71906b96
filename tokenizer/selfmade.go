package tokenizer

// selfMade tells of every token whether merging its own bytes leads to it and
// stops there, so that a word of those bytes need not be merged. It is nil if the
// merges do not tell cheaply: where a token can be made in two ways.
//
// A token T made of l and r by the merge of rank k comes about in its own bytes if
// l and r do in theirs and if, until k's turn, no merge reaches across the boundary
// between them. What stands on either side of the boundary at any time follows from
// taking l and r apart again, the later made first: if the neighbours of that time
// merge with a lower rank than the one just undone, they would have done so first.
// Of equal ranks the leftmost goes first, hence the two comparisons.
func (m *model) selfMade() []bool {
	made := make([]madeBy, len(m.vocab.spans))
	for _, s := range m.pairs.slots {
		if s == emptySlot {
			continue
		}
		rank := uint32(s) & noMerge
		t := &made[m.pairs.ids[rank]]
		if t.by != 0 {
			return nil
		}
		*t = madeBy{uint32(s >> (64 - idBits)), uint32(s>>rankBits) & (1<<idBits - 1), rank + 1}
	}
	ok := make([]bool, len(made))
	for _, id := range m.byteID {
		if id >= 0 && made[id].by == 0 {
			ok[id] = true
		}
	}
	for rank, id := range m.pairs.ids {
		if t := made[id]; t.by == uint32(rank)+1 {
			ok[id] = ok[t.left] && ok[t.right] && made[t.left].by < t.by && made[t.right].by < t.by && m.meets(made, t)
		}
	}
	return ok
}

// madeBy is the merge that makes a token: its sides and its rank + 1; 0 for a
// token that no merge makes.
type madeBy struct{ left, right, by uint32 }

// meets reports whether the sides of t come to stand beside each other.
func (m *model) meets(made []madeBy, t madeBy) bool {
	left, right := t.left, t.right
	for {
		l, r := made[left], made[right]
		limit := uint32(0) // ranks + 1 up to this would have gone first
		switch {
		case l.by == 0 && r.by == 0:
			return true
		case l.by > r.by:
			left, limit = l.right, l.by-1
		default:
			right, limit = r.left, r.by
		}
		if m.pairs.get(left, right) < limit {
			return false
		}
	}
}
