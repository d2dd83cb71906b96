package frontend

// stops are the stop strings of a request, compiled; choices share it. Each
// string is matched by its own Knuth-Morris-Pratt automaton, so that a byte of
// text costs a constant time per string whatever text and strings are.
type stops struct {
	strings []string
	// fail[i][k] is the length of the longest proper prefix of strings[i] that is
	// a suffix of its first k+1 bytes.
	fail [][]uint16
}

// newStops returns nil if there is nothing to look for.
func newStops(list []string) *stops {
	if len(list) == 0 {
		return nil
	}
	s := &stops{strings: list, fail: make([][]uint16, len(list))}
	for i, p := range list {
		fail := make([]uint16, len(p))
		for k, n := 1, 0; k < len(p); k++ {
			for n > 0 && p[k] != p[n] {
				n = int(fail[n-1])
			}
			if p[k] == p[n] {
				n++
			}
			fail[k] = uint16(n)
		}
		s.fail[i] = fail
	}
	return s
}

// matcher looks for stops in the text of one choice.
type matcher struct {
	*stops
	state []uint16 // by string: how much of it the text ends with
}

func newMatcher(s *stops) matcher {
	if s == nil {
		return matcher{}
	}
	return matcher{stops: s, state: make([]uint16, len(s.strings))}
}

// feed reads more text. found is the index of the string that is completed
// first (of several completed by the same byte the longest) and end the number of
// bytes of text up to there; otherwise found is -1.
func (m *matcher) feed(text []byte) (found, end int) {
	for at, c := range text {
		found = -1
		for i, p := range m.strings {
			n := int(m.state[i])
			for n > 0 && p[n] != c {
				n = int(m.fail[i][n-1])
			}
			if p[n] == c {
				n++
			}
			m.state[i] = uint16(n)
			if n == len(p) {
				m.state[i] = m.fail[i][n-1]
				if found < 0 || len(p) > len(m.strings[found]) {
					found = i
				}
			}
		}
		if found >= 0 {
			return found, at + 1
		}
	}
	return -1, 0
}

// held is the number of bytes at the text's end that may become part of a stop
// string.
func (m *matcher) held() int {
	most := 0
	for _, n := range m.state {
		most = max(most, int(n))
	}
	return most
}
