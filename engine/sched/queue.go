package sched

import "container/heap"

// waitQueue is a heap of waiting sequences, the first in order at its root.
type waitQueue []*sequence

func (w waitQueue) Len() int           { return len(w) }
func (w waitQueue) Less(i, j int) bool { return w[i].before(w[j]) }
func (w waitQueue) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].waitIndex, w[j].waitIndex = i, j
}

// Push implements heap.Interface.
func (w *waitQueue) Push(x any) {
	q := x.(*sequence)
	q.waitIndex = len(*w)
	*w = append(*w, q)
}

// Pop implements heap.Interface.
func (w *waitQueue) Pop() any {
	last := len(*w) - 1
	q := (*w)[last]
	(*w)[last] = nil
	*w, q.waitIndex = (*w)[:last], -1
	return q
}

// remove takes q out, if it is in.
func (w *waitQueue) remove(q *sequence) {
	if q.waitIndex >= 0 {
		heap.Remove(w, q.waitIndex)
	}
}

// deadlines is a heap of the sequences that have one, the earliest at its root.
type deadlines []*sequence

func (d deadlines) Len() int { return len(d) }
func (d deadlines) Less(i, j int) bool {
	if c := d[i].deadline.Compare(d[j].deadline); c != 0 {
		return c < 0
	}
	return d[i].order < d[j].order
}
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].deadlineIndex, d[j].deadlineIndex = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	q := x.(*sequence)
	q.deadlineIndex = len(*d)
	*d = append(*d, q)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	q := (*d)[last]
	(*d)[last] = nil
	*d, q.deadlineIndex = (*d)[:last], -1
	return q
}

// remove takes q out, if it is in.
func (d *deadlines) remove(q *sequence) {
	if q.deadlineIndex >= 0 {
		heap.Remove(d, q.deadlineIndex)
	}
}
