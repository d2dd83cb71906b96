package frontend

import (
	"strings"
	"testing"
)

// naiveStop is what a stop list means: the text ends before (or, included, after)
// the stop string that is complete first, of several the longest.
func naiveStop(text string, list []string, include bool) string {
	for end := 1; end <= len(text); end++ {
		best := ""
		for _, s := range list {
			if strings.HasSuffix(text[:end], s) && len(s) > len(best) {
				best = s
			}
		}
		if best != "" {
			if include {
				return text[:end]
			}
			return text[:end-len(best)]
		}
	}
	return text
}

// FuzzStop wants the matcher to agree with the definition for every cut of the
// text, and what it releases before to be never more than what is certain and
// never less.
func FuzzStop(f *testing.F) {
	f.Add("hello world", "wor|o w", 3)
	f.Add("aaaaaab", "aab|aaaa", 1)
	f.Add("abcabcabd", "abcabd|bca", 2)
	f.Fuzz(func(t *testing.T, text, stopList string, cut int) {
		var list []string
		for s := range strings.SplitSeq(stopList, "|") {
			if s != "" {
				list = append(list, s)
			}
		}
		if len(list) == 0 || len(list) > 16 || len(text) > 4096 || cut < 1 {
			return
		}
		m := newMatcher(newStops(list))
		out, pending, stopped := "", "", false
		for from := 0; from < len(text) && !stopped; from += cut {
			piece := text[from:min(from+cut, len(text))]
			before := len(pending)
			pending += piece
			found, end := m.feed([]byte(piece))
			n := len(pending)
			if stopped = found >= 0; stopped {
				n = before + end - len(list[found])
			} else {
				n -= m.held()
				if want := certain(pending, list); n != want {
					t.Fatalf("%q with stops %q: %d bytes released, %d are certain", pending, list, n, want)
				}
			}
			out += pending[:n]
			pending = pending[n:]
		}
		if !stopped {
			out += pending
		}
		if want := naiveStop(text, list, false); out != want {
			t.Fatalf("%q with stops %q cut by %d: got %q, want %q", text, list, cut, out, want)
		}
	})
}

// certain is the length of text without its longest suffix that begins a stop
// string.
func certain(text string, list []string) int {
	for held := len(text); held > 0; held-- {
		for _, s := range list {
			if strings.HasPrefix(s, text[len(text)-held:]) {
				return len(text) - held
			}
		}
	}
	return len(text)
}

func BenchmarkStop(b *testing.B) {
	list := make([]string, 64)
	for i := range list {
		list[i] = strings.Repeat("a", 1000+i) + "b"
	}
	m, text := newMatcher(newStops(list)), []byte(strings.Repeat("a", 64))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m.feed(text)
	}
}
