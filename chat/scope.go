package chat

import "slices"

// Where a name lives is decided when a template is compiled, by jinja2's own
// rules (its idtracking.py): every function (the template, a macro, the body of
// a call block, a recursive loop) has slots for the variables of its frames; a
// frame, such as one pass of a loop, loads its variables when it is entered,
// from the context or from the frame around it.

// scopeFunc is a function: a unit with slots of its own.
type scopeFunc struct {
	up    *scopeFunc
	slots int
	// closes says that functions within it refer to its slots, which then have to
	// outlive its run.
	closes bool
}

// binding is the slot of a variable of one frame.
type binding struct {
	fn   *scopeFunc
	slot int
	name string
	// context is the index of the context variable that the binding is but
	// another name for; -1 if it has a slot of its own.
	context int
}

// ref is a binding as seen from a function: so many functions out, that slot;
// or, with up < 0, that context variable.
type ref struct {
	up   int
	slot int
}

type loadKind uint8

const (
	loadParam   loadKind = iota // assigned by whoever enters the frame
	loadContext                 // from the context, by name
	loadAlias                   // from the frame around
	loadNothing                 // not there yet
)

// loading says how a binding comes by its value.
type loading struct {
	how  loadKind
	from *binding // loadAlias
	name string   // loadContext
}

// load is a loading made executable.
type load struct {
	slot int
	how  loadKind
	from ref // loadAlias, loadContext
}

// symbols are the variables of one frame. Those of a branch of an if lie over
// those the frame has without it, until merge puts them together.
type symbols struct {
	up     *symbols
	base   *symbols
	fn     *scopeFunc
	owned  map[string]*binding // every binding of the frame, shared by its branches
	refs   map[string]*binding
	loads  map[*binding]loading
	order  []*binding
	stores map[string]bool
}

func newSymbols(up *symbols, fn *scopeFunc) *symbols {
	return &symbols{up: up, fn: fn, owned: map[string]*binding{}, refs: map[string]*binding{},
		loads: map[*binding]loading{}, stores: map[string]bool{}}
}

// branch returns the symbols of a branch.
func (s *symbols) branch() *symbols {
	b := newSymbols(s.up, s.fn)
	b.base, b.owned = s, s.owned
	return b
}

func (s *symbols) setLoad(b *binding, l loading) {
	if _, ok := s.loads[b]; !ok {
		s.order = append(s.order, b)
	}
	s.loads[b] = l
}

func (s *symbols) define(name string, l loading) *binding {
	b := s.owned[name]
	if b == nil {
		b = &binding{fn: s.fn, slot: s.fn.slots, name: name, context: -1}
		s.fn.slots++
		s.owned[name] = b
	}
	s.refs[name] = b
	s.setLoad(b, l)
	return b
}

// own finds a binding of the frame itself.
func (s *symbols) own(name string) *binding {
	for ; s != nil; s = s.base {
		if b := s.refs[name]; b != nil {
			return b
		}
	}
	return nil
}

func (s *symbols) find(name string) *binding {
	for f := s; f != nil; f = f.up {
		if b := f.own(name); b != nil {
			return b
		}
	}
	return nil
}

// assigns reports whether the frame assigns to name.
func (s *symbols) assigns(name string) bool {
	for ; s != nil; s = s.base {
		if s.stores[name] {
			return true
		}
	}
	return false
}

func (s *symbols) store(name string) {
	s.stores[name] = true
	if s.own(name) != nil {
		return
	}
	if s.up != nil {
		if outer := s.up.find(name); outer != nil {
			s.define(name, loading{how: loadAlias, from: outer})
			return
		}
	}
	s.define(name, loading{how: loadNothing})
}

func (s *symbols) param(name string) *binding {
	s.stores[name] = true
	return s.define(name, loading{how: loadParam})
}

func (s *symbols) load(name string) {
	if s.find(name) == nil {
		s.define(name, loading{how: loadContext, name: name})
	}
}

// merge takes over what the branches of an if did: a variable that only some of
// them assign has its outer value in the others.
func (s *symbols) merge(branches ...*symbols) {
	var assigned []string
	seen := map[string]bool{}
	for _, b := range branches {
		for name := range b.stores {
			if !seen[name] && !s.assigns(name) {
				seen[name] = true
				assigned = append(assigned, name)
			}
		}
	}
	for _, b := range branches {
		for name, bind := range b.refs {
			s.refs[name] = bind
		}
		for _, bind := range b.order {
			s.setLoad(bind, b.loads[bind])
		}
		for name := range b.stores {
			s.stores[name] = true
		}
	}
	slices.Sort(assigned)
	for _, name := range assigned {
		target := s.find(name)
		if s.up != nil {
			if outer := s.up.find(name); outer != nil {
				s.setLoad(target, loading{how: loadAlias, from: outer})
				continue
			}
		}
		s.setLoad(target, loading{how: loadContext, name: name})
	}
}

// visitStmts records what statements do to the variables of the frame they
// stand in; frames within are not entered.
func (s *symbols) visitStmts(body []stmt) {
	for _, st := range body {
		s.visitStmt(st)
	}
}

func (s *symbols) visitStmt(st stmt) {
	switch st := st.(type) {
	case *output:
		s.visitExprs(st.items)
	case *ifStmt:
		s.visitIf(st)
	case *forStmt:
		s.visitExpr(st.in)
	case *setStmt:
		s.visitExpr(st.x)
		s.visitTarget(st.target)
	case *setBlock:
		s.visitTarget(st.target)
	case *macroStmt:
		s.store(st.target.id)
	case *callBlock:
		s.visitExpr(st.call)
	case *generation, *block, *text, *breakStmt, *continueStmt:
	case *filterBlock:
		s.visitExpr(st.filter)
	case *withStmt:
		s.visitExprs(st.values)
	case *refused:
		for _, n := range st.names {
			s.store(n.id)
		}
	}
}

// visitIf follows jinja2 in treating all elif tests and bodies as one branch.
func (s *symbols) visitIf(st *ifStmt) {
	s.visitExpr(st.tests[0])
	body, elif, other := s.branch(), s.branch(), s.branch()
	body.visitStmts(st.bodies[0])
	for i := 1; i < len(st.tests); i++ {
		elif.visitExpr(st.tests[i])
		b := elif.branch()
		b.visitStmts(st.bodies[i])
		elif.merge(b)
	}
	other.visitStmts(st.other)
	s.merge(body, elif, other)
}

func (s *symbols) visitTarget(x expr) {
	switch x := x.(type) {
	case *name:
		s.store(x.id)
	case *attrTarget:
		s.load(x.ns.id)
	case *tupleExpr:
		for _, item := range x.items {
			s.visitTarget(item)
		}
	}
}

func (s *symbols) visitParams(x expr) {
	switch x := x.(type) {
	case *name:
		s.param(x.id)
	case *tupleExpr:
		for _, item := range x.items {
			s.visitParams(item)
		}
	}
}

func (s *symbols) visitExprs(list []expr) {
	for _, x := range list {
		s.visitExpr(x)
	}
}

func (s *symbols) visitExpr(x expr) {
	walkExpr(x, func(x expr) {
		if n, ok := x.(*name); ok {
			s.load(n.id)
		}
	})
}

// walkExpr calls f for x and every expression within, in reading order.
func walkExpr(x expr, f func(expr)) {
	if x == nil {
		return
	}
	f(x)
	for _, child := range children(x) {
		walkExpr(child, f)
	}
}

// children returns the expressions directly within x; absent ones are nil.
func children(x expr) []expr {
	switch x := x.(type) {
	case *tupleExpr:
		return x.items
	case *listExpr:
		return x.items
	case *dictExpr:
		list := make([]expr, 0, 2*len(x.pairs))
		for _, p := range x.pairs {
			list = append(list, p.key, p.value)
		}
		return list
	case *binary:
		return []expr{x.l, x.r}
	case *unary:
		return []expr{x.x}
	case *not:
		return []expr{x.x}
	case *logic:
		return []expr{x.l, x.r}
	case *concat:
		return x.parts
	case *compare:
		list := []expr{x.first}
		for _, o := range x.rest {
			list = append(list, o.x)
		}
		return list
	case *condition:
		return []expr{x.test, x.yes, x.no}
	case *getAttr:
		return []expr{x.x}
	case *getItem:
		return []expr{x.x, x.index}
	case *slice:
		return []expr{x.x, x.start, x.stop, x.step}
	case *call:
		return append([]expr{x.fn}, x.args.list()...)
	case *filter:
		return append([]expr{x.in}, x.args.list()...)
	case *test:
		return append([]expr{x.in}, x.args.list()...)
	}
	return nil
}

func (a *arguments) list() []expr {
	list := append([]expr{}, a.pos...)
	for _, n := range a.named {
		list = append(list, n.x)
	}
	return append(list, a.star, a.starStar)
}
