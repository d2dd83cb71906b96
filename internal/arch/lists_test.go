package arch

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the collected lists in the documents")

// TestLife keeps the life of a request in ARCHITECTURE.md equal to the
// `// Life N: …` comments in the code.
func TestLife(t *testing.T) {
	mark := regexp.MustCompile(`^\s*// Life (\d+): (.*)$`)
	type step struct {
		n           int
		where, text string
	}
	var steps []step
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			src := read(t, filepath.Join(p.short(), name))
			for _, line := range strings.Split(src, "\n") {
				if m := mark.FindStringSubmatch(line); m != nil {
					n, _ := strconv.Atoi(m[1])
					steps = append(steps, step{n, p.short() + "/" + name, m[2]})
				}
			}
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		if a.n != b.n {
			return a.n - b.n
		}
		return strings.Compare(a.where, b.where)
	})
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(strconv.Itoa(s.n) + ". `" + s.where + "` " + s.text + "\n")
	}
	section(t, "ARCHITECTURE.md", "life", b.String())
}

// TestDependencies wants a line in DEPENDENCIES.md for each direct requirement
// and none for others.
func TestDependencies(t *testing.T) {
	doc := read(t, "DEPENDENCIES.md")
	direct := map[string]bool{}
	for _, line := range strings.Split(read(t, "go.mod"), "\n") {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && strings.HasPrefix(f[1], "v") && !strings.Contains(line, "// indirect") {
			direct[f[0]] = true
			if !strings.Contains(doc, "`"+f[0]+"`") {
				t.Errorf("DEPENDENCIES.md has no line for %s", f[0])
			}
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(doc, -1) {
		if !direct[m[1]] {
			t.Errorf("DEPENDENCIES.md lists %s, which go.mod does not require directly", m[1])
		}
	}
}

// TestMetrics keeps docs/METRICS.md equal to the metrics the code defines: name,
// labels and help stand in one line there.
func TestMetrics(t *testing.T) {
	define := regexp.MustCompile(`"(dynamo_[a-z0-9_]+)", "([^"]+)"(.*)`)
	label := regexp.MustCompile(`"([a-z_]+)"`)
	var rows []string
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			for _, m := range define.FindAllStringSubmatch(read(t, filepath.Join(p.short(), file)), -1) {
				var labels []string
				for _, l := range label.FindAllStringSubmatch(m[3], -1) {
					labels = append(labels, "`"+l[1]+"`")
				}
				rows = append(rows, "| `"+m[1]+"` | "+strings.Join(labels, " ")+" | "+m[2]+" |\n")
			}
		}
	}
	slices.Sort(rows)
	section(t, "docs/METRICS.md", "metrics", "| name | labels | meaning |\n|---|---|---|\n"+strings.Join(rows, ""))
}

// section compares the text between the markers of a collected list with what
// the code says; -update rewrites it.
func section(t *testing.T, file, name, want string) {
	t.Helper()
	doc := read(t, file)
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	i, j := strings.Index(doc, begin), strings.Index(doc, end)
	if i < 0 || j < i {
		t.Fatalf("%s lacks the markers %q and %q", file, begin, end)
	}
	i += len(begin)
	if doc[i:j] == want {
		return
	}
	if !*update {
		t.Fatalf("%s: the list %q differs from the code; run `go test ./internal/arch -update`. Want:\n%s", file, name, want)
	}
	if err := os.WriteFile(filepath.Join(root(), file), []byte(doc[:i]+want+doc[j:]), 0o644); err != nil {
		t.Fatal(err)
	}
}
