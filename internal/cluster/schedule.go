package cluster

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// Fault is one thing that goes wrong, and for how long.
type Fault struct {
	At   time.Duration
	Kind string // one of the kinds below
	// A is the host it happens to; B the other end of a connection, empty for
	// kinds that concern a host alone.
	A, B string
	For  time.Duration
}

// The kinds of fault.
const (
	Delay     = "delay"     // bytes between A and B take For longer, for the rest of the run
	Reset     = "reset"     // all connections between A and B break at once
	Partition = "partition" // nothing passes between A and B for a while
	OneWay    = "oneway"    // nothing passes from A to B for a while
	Pause     = "pause"     // the host is stopped, as by SIGSTOP, for a while
	Kill      = "kill"      // the host's process is gone, as by SIGKILL; another starts after For
	Drain     = "drain"     // SIGTERM; another process starts after For
	StoreDown = "store"     // the discovery store is gone for a while
	Lose      = "lose"      // A, a frontend, loses the next KV events of B and nobody notices
)

// String writes the fault as the -faults flag reads it.
func (f Fault) String() string {
	who := f.A
	if f.B != "" {
		who += "," + f.B
	}
	return fmt.Sprintf("%s(%s)@%v+%v", f.Kind, who, f.At, f.For)
}

// Format writes a schedule as the -faults flag reads it.
func Format(faults []Fault) string {
	all := make([]string, len(faults))
	for i, f := range faults {
		all[i] = f.String()
	}
	return strings.Join(all, ";")
}

// Parse reads what Format writes.
func Parse(s string) ([]Fault, error) {
	var all []Fault
	for _, part := range strings.Split(s, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		kind, rest, ok := strings.Cut(part, "(")
		who, when, ok2 := strings.Cut(rest, ")@")
		at, length, ok3 := strings.Cut(when, "+")
		if !ok || !ok2 || !ok3 {
			return nil, fmt.Errorf("%q is not KIND(HOST[,HOST])@TIME+LENGTH", part)
		}
		f := Fault{Kind: kind}
		f.A, f.B, _ = strings.Cut(who, ",")
		var err error
		if f.At, err = time.ParseDuration(at); err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		if f.For, err = time.ParseDuration(length); err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		all = append(all, f)
	}
	return all, nil
}

// draws gives numbers that depend on a seed, on who asks and on how often it has
// asked.
type draws struct {
	seed uint64
	key  string
	n    uint64
}

func (d *draws) next() uint64 {
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte(d.key), d.seed), d.n)) // never fails
	d.n++
	x := h.Sum64()
	x ^= x >> 33 // fnv's low bits are weak
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// below returns a number of 0 … n-1.
func (d *draws) below(n int) int { return int(d.next() % uint64(n)) }

// between returns a duration of [a, b).
func (d *draws) between(a, b time.Duration) time.Duration {
	return a + time.Duration(d.next()%uint64(b-a))
}

func (d *draws) pick(of ...string) string { return of[d.below(len(of))] }

// first is what is picked first.
func (d draws) first(of ...string) string { return d.pick(of...) }

// Shape is the size of a cluster and of its load, which a seed determines too.
type Shape struct {
	Frontends, Workers int
	Connections        int
	RouterMode         string
	ITL                time.Duration
	Requests           int
	Length             time.Duration // faults and arrivals fall into it
	// Mocker says that the workers have mockers, not echo engines; Slow is how many
	// times as slow all but the first are, and Refuse which share of requests they
	// refuse.
	Mocker       bool
	Slow, Refuse float64
	// Prefills is how many of the mockers, the last ones, compute prompts for the
	// others; 0: all do everything. PreemptFirst says whom they preempt, and Lost which
	// share of the KV that is handed over does not come.
	Prefills     int
	Split        string // whether prompts are computed by them
	PreemptFirst bool
	Lost         float64
	// Losses is how often a frontend loses KV events of a worker without noticing.
	Losses int
}

// shape draws a cluster.
func shape(seed uint64) Shape {
	d, m := draws{seed: seed, key: "shape"}, draws{seed: seed, key: "mocker"}
	r := draws{seed: seed, key: "role"}
	s := Shape{
		Mocker: m.below(2) == 0, Slow: float64(1 + m.below(4)), Refuse: float64(m.below(3)) / 10,
		Frontends: 1 + d.below(2), Workers: 2 + d.below(3), Connections: 1 + d.below(2),
		RouterMode: d.pick("round-robin", "random", "least-loaded", "power-of-two"),
		ITL:        d.between(2*time.Millisecond, 15*time.Millisecond), Requests: 8 + d.below(17),
		Length: d.between(time.Second, 6*time.Second),
	}
	if s.Mocker && r.below(2) == 0 {
		s.Prefills, s.Lost = 1+r.below(s.Workers-1), float64(r.below(3))/10
		s.Split = draws{seed: seed, key: "split"}.first("always", "always", "auto")
	}
	s.PreemptFirst = r.below(3) == 0
	if i := (draws{seed: seed, key: "index"}); s.Mocker && i.below(2) == 0 {
		s.RouterMode = i.pick("kv", "kv", "dynamo", "sticky", "lmetric", "session")
		s.Frontends += i.below(3)
		s.Losses = i.below(4)
	}
	return s
}

// Faults draws a schedule for a cluster. The first worker is spared what takes it
// away for longer than a reconnection, so that there is always a healthy one (I8).
func (s Shape) Faults(seed uint64) []Fault {
	d := draws{seed: seed, key: "faults"}
	faults := make([]Fault, 1+d.below(8))
	for i := range faults {
		faults[i] = s.fault(&d)
	}
	for i := range s.Losses {
		d := draws{seed: seed, key: fmt.Sprintf("loss %d", i)}
		f := Fault{At: d.between(0, s.Length), Kind: Lose}
		f.A, f.B = fmt.Sprintf("front%d", 1+d.below(s.Frontends)), fmt.Sprintf("w%d", 1+d.below(s.Workers))
		faults = append(faults, f)
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return faults
}

func (s Shape) fault(d *draws) Fault {
	front := fmt.Sprintf("front%d", 1+d.below(s.Frontends))
	f := Fault{At: d.between(0, s.Length)}
	f.Kind = d.pick(Delay, Reset, Reset, Partition, OneWay, Pause, Kill, Kill, Drain, StoreDown)
	switch f.Kind {
	case StoreDown:
		f.A, f.For = "store", d.between(100*time.Millisecond, 8*time.Second)
	case Delay:
		f.A, f.B, f.For = front, fmt.Sprintf("w%d", 1+d.below(s.Workers)), d.between(time.Millisecond, 200*time.Millisecond)
	case Reset:
		f.A, f.B = front, fmt.Sprintf("w%d", 1+d.below(s.Workers))
	case Partition, OneWay:
		f.A, f.B, f.For = front, fmt.Sprintf("w%d", 2+d.below(s.Workers-1)), d.between(50*time.Millisecond, 8*time.Second)
		if f.Kind == OneWay && d.below(2) == 0 {
			f.A, f.B = f.B, f.A
		}
	case Pause, Kill, Drain:
		f.A, f.For = fmt.Sprintf("w%d", 2+d.below(s.Workers-1)), d.between(50*time.Millisecond, 6*time.Second)
		if f.Kind == Kill && s.Frontends > 1 && d.below(6) == 0 {
			f.A = "front2"
		}
	}
	return f
}
