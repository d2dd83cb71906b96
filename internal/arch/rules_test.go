package arch

import (
	"bytes"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pure packages decide; they have no I/O, clock, goroutine, randomness or log.
var pure = []string{"tokens", "perfmodel", "bench/stats", "kvbm", "kvbm/layout", "engine/sched", "router/placement", "router/kvindex", "chat", "tokenizer", "internal/copysum"}

var impureImports = []string{"os", "os/exec", "os/signal", "net", "net/http", "syscall", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "io/ioutil"}

var clockCalls = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

func TestPurePackages(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(pure, p.short()) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(impureImports, imp) {
				t.Errorf("pure package %s imports %s", p.short(), imp)
			}
		}
		for name, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s/%s starts a goroutine in a pure package", p.short(), name)
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clockCalls, n.Sel.Name) {
						t.Errorf("%s/%s reads the clock (time.%s) in a pure package", p.short(), name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// vague names say nothing about what a package holds.
var vague = []string{"util", "utils", "common", "types", "helper", "helpers", "misc", "shared", "base", "core", "models", "interfaces", "constants", "manager", "impl", "pkg"}

// deep lists the folders below which one level more is allowed.
var deep = []string{"engine/native/", "plane/", "operator/"}

func TestPackages(t *testing.T) {
	for _, p := range packages(t) {
		name := p.short()
		for _, part := range strings.Split(name, "/") {
			if slices.Contains(vague, part) {
				t.Errorf("package %s: %q is not a name", name, part)
			}
		}
		limit := 2
		if slices.ContainsFunc(deep, func(d string) bool { return strings.HasPrefix(name, d) }) {
			limit = 3
		}
		if strings.HasSuffix(name, "/gen") { // a generator belongs to the package it writes
			limit++
		}
		if depth := strings.Count(name, "/") + 1; depth > limit {
			t.Errorf("package %s lies %d levels deep, limit %d", name, depth, limit)
		}
		documented := false
		for _, f := range p.files {
			documented = documented || f.Doc != nil && len(f.Doc.Text()) > 40
		}
		if !documented && len(p.GoFiles) > 0 {
			t.Errorf("package %s has no package comment worth the name", name)
		}
	}
}

// environment readers: everybody else receives a Config.
var getenv = []string{"cmd/dynamo", "internal/fixture"}

func TestSource(t *testing.T) {
	hole := regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			where := p.short() + "/" + name
			if lines := bytes.Count(src, []byte("\n")); lines > 800 {
				t.Errorf("%s has %d lines, limit 800", where, lines)
			}
			if p.short() == "internal/arch" {
				continue
			}
			if !slices.Contains(getenv, p.short()) && !strings.HasSuffix(name, "_test.go") && regexp.MustCompile(`\bos\.(Getenv|LookupEnv|Environ)\(`).Match(src) {
				t.Errorf("%s reads the environment; only cmd does", where)
			}
			for _, m := range hole.FindAll(src, -1) {
				if !bytes.Contains(src, append(m, "(#"...)) {
					t.Errorf("%s holds a %s", where, m)
				}
			}
		}
	}
}

// maxFunction is the length of the longest function, in lines; maxLongFunctions
// is how many may exceed it (scanners and opcode switches read best whole). The
// number may only shrink.
const (
	maxFunction      = 70
	maxLongFunctions = 0
)

func TestFunctions(t *testing.T) {
	var long []string
	for _, p := range packages(t) {
		for name, f := range p.files {
			if ast.IsGenerated(f) {
				continue
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := p.fset.Position(fn.End()).Line - p.fset.Position(fn.Pos()).Line + 1; n > maxFunction {
					long = append(long, p.short()+"/"+name+" "+fn.Name.Name+" "+strconv.Itoa(n))
				}
			}
		}
	}
	slices.Sort(long)
	if len(long) > maxLongFunctions {
		t.Errorf("%d functions exceed %d lines, limit %d:\n%s", len(long), maxFunction, maxLongFunctions, strings.Join(long, "\n"))
	}
}

func TestExportedDocs(t *testing.T) {
	for _, p := range packages(t) {
		for name, f := range p.files {
			for _, d := range f.Decls {
				undocumented(d, func(what string) {
					t.Errorf("%s/%s: exported %s has no comment", p.short(), name, what)
				})
			}
		}
	}
}

// undocumented reports the exported things of d that lack a doc comment.
func undocumented(d ast.Decl, report func(string)) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
			report(d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					report(s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						report(n.Name)
					}
				}
			}
		}
	}
}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}
