package arch

import (
	"strings"
	"testing"
)

// layers reads layers.txt into package -> line number.
func layers(t *testing.T) map[string]int {
	t.Helper()
	m := map[string]int{}
	for n, line := range strings.Split(read(t, "internal/arch/layers.txt"), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		for _, p := range f[1:] {
			if _, twice := m[p]; twice {
				t.Errorf("layers.txt places %s twice", p)
			}
			m[p] = n
		}
	}
	return m
}

func TestLayers(t *testing.T) {
	layer, seen := layers(t), map[string]bool{}
	for _, p := range packages(t) {
		me, placed := layer[p.short()]
		seen[p.short()] = true
		if !placed {
			t.Errorf("%s stands in no layer of layers.txt: place it", p.short())
			continue
		}
		for _, imp := range p.Imports {
			other, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if other = strings.TrimPrefix(other, "/"); other == "" {
				other = "."
			}
			if layer[other] >= me {
				t.Errorf("%s imports %s, which is not in an earlier layer", p.short(), other)
			}
			if other == "internal/fixture" {
				t.Errorf("%s imports internal/fixture outside its tests", p.short())
			}
		}
	}
	for p := range layer {
		if !seen[p] {
			t.Errorf("layers.txt places %s, which does not exist", p)
		}
	}
}
