package chat

import "slices"

// binder is the second pass of a compile: it gives every name its slot, every
// filter and test its function, and refuses what jinja2's compiler refuses.
type binder struct {
	context  []string // the names looked up in the context, by index
	contexts map[string]int
	top      *symbols // of the template itself
	height   int
	err      error
}

// down counts one level of the tree; the tree's height bounds the stack.
func (b *binder) down(line int) {
	if b.height++; b.height == maxHeight {
		b.fail(syntaxError(line, "expressions and statements nest more than %d levels", maxHeight))
	}
}

func (b *binder) up() { b.height-- }

// frame is the place a statement stands in.
type frame struct {
	s *symbols
	// soft says that an unknown filter is an error only once it is used, as
	// within an if.
	soft bool
}

// forScope is what a for loop needs to run.
type forScope struct {
	fn     *scopeFunc // of a recursive loop; nil otherwise
	loop   int        // slot of the variable loop; -1 if nobody asks for it
	weight int        // steps one pass counts for
	enter  []load
	other  []load
	test   []load
	target expr // the target within the condition
}

// macroScope is what a macro needs to run.
type macroScope struct {
	fn       *scopeFunc
	params   []int // slots
	caller   int   // slots of the special parameters; -1 if they are not used
	kwargs   int
	varargs  int
	explicit bool // caller is among the parameters
	weight   int  // steps one call counts for
	enter    []load
}

func (b *binder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *binder) contextIndex(name string) int {
	i, ok := b.contexts[name]
	if !ok {
		i = len(b.context)
		b.contexts[name] = i
		b.context = append(b.context, name)
	}
	return i
}

// template binds a whole template and returns its function.
func (b *binder) template(body []stmt) (*scopeFunc, []load) {
	fn := &scopeFunc{}
	s := newSymbols(nil, fn)
	b.top = s
	s.visitStmts(body)
	b.settle(s)
	b.stmts(body, frame{s: s})
	return fn, b.loads(s)
}

// settle lets variables that are only read from the context be read there
// directly. It runs when the symbols of a frame are complete.
func (b *binder) settle(s *symbols) {
	for _, bind := range s.order {
		if l := s.loads[bind]; l.how == loadContext && !s.assigns(bind.name) {
			bind.context = b.contextIndex(l.name)
		}
	}
}

// loads makes the loadings of a frame executable.
func (b *binder) loads(s *symbols) []load {
	var list []load
	for _, bind := range s.order {
		l := s.loads[bind]
		if bind.context >= 0 || l.how == loadParam {
			continue
		}
		op := load{slot: bind.slot, how: l.how}
		switch l.how {
		case loadAlias:
			op.from = b.ref(l.from, s.fn)
		case loadContext:
			op.from = ref{up: -1, slot: b.contextIndex(l.name)}
		}
		list = append(list, op)
	}
	return list
}

// ref is bind as seen from fn.
func (b *binder) ref(bind *binding, fn *scopeFunc) ref {
	if bind.context >= 0 {
		return ref{up: -1, slot: bind.context}
	}
	up := 0
	for f := fn; f != bind.fn; f = f.up {
		f.up.closes = true
		up++
	}
	return ref{up: up, slot: bind.slot}
}

func (b *binder) stmts(body []stmt, f frame) {
	for _, s := range body {
		b.stmt(s, f)
	}
}

func (b *binder) stmt(s stmt, f frame) {
	b.down(0)
	defer b.up()
	switch s := s.(type) {
	case *output:
		for i := range s.items {
			b.expr(&s.items[i], f)
		}
	case *ifStmt:
		f.soft = true
		for i := range s.tests {
			b.expr(&s.tests[i], f)
			b.stmts(s.bodies[i], f)
		}
		b.stmts(s.other, f)
	case *forStmt:
		b.forStmt(s, f)
	case *setStmt:
		b.expr(&s.x, f)
		b.target(s.target, f)
	case *setBlock:
		b.target(s.target, f)
		inner := frame{s: b.inner(f, func(in *symbols) {
			in.visitStmts(s.body)
			if s.filter != nil {
				in.visitExpr(s.filter)
			}
		})}
		b.stmts(s.body, inner)
		b.filterChain(s.filter, inner)
		s.enter = b.loads(inner.s)
	case *macroStmt:
		b.macro(s.def, f)
		b.target(s.target, f)
	case *callBlock:
		b.macro(s.def, f)
		var x expr = s.call
		b.expr(&x, f)
	case *generation:
		b.macro(s.def, f)
	case *filterBlock:
		inner := frame{s: b.inner(f, func(in *symbols) {
			in.visitStmts(s.body)
			in.visitExpr(s.filter)
		})}
		b.stmts(s.body, inner)
		b.filterChain(s.filter, inner)
		s.enter = b.loads(inner.s)
	case *withStmt:
		b.withStmt(s, f)
	case *block:
		b.block(s)
	case *refused:
		for _, n := range s.names {
			b.target(n, f)
		}
	}
}

// inner makes the symbols of a frame within f.
func (b *binder) inner(f frame, visit func(*symbols)) *symbols {
	s := newSymbols(f.s, f.s.fn)
	visit(s)
	b.settle(s)
	return s
}

func (b *binder) withStmt(s *withStmt, f frame) {
	inner := frame{s: b.inner(f, func(in *symbols) {
		for _, t := range s.targets {
			in.visitParams(t)
		}
		in.visitStmts(s.body)
	})}
	for i := range s.targets {
		b.expr(&s.values[i], f)
		b.target(s.targets[i], inner)
	}
	b.stmts(s.body, inner)
	s.enter = b.loads(inner.s)
}

// block binds a named block, which sees the context and what the template has
// assigned outside of all frames, but no frame around it.
func (b *binder) block(s *block) {
	s.fn = &scopeFunc{up: b.top.fn}
	inner := frame{s: newSymbols(nil, s.fn)}
	inner.s.visitStmts(s.body)
	for _, bind := range inner.s.order {
		l := inner.s.loads[bind]
		if outer := b.top.refs[bind.name]; l.how == loadContext && outer != nil && b.top.stores[bind.name] {
			inner.s.setLoad(bind, loading{how: loadAlias, from: outer})
		}
	}
	b.settle(inner.s)
	b.stmts(s.body, inner)
	s.enter = b.loads(inner.s)
}

func (b *binder) forStmt(s *forStmt, f frame) {
	if line := assignsLoop(s); line > 0 {
		b.fail(syntaxError(line, "Can't assign to special loop variable in for-loop target"))
	}
	s.scope.weight = 1 + nodes(s)>>4
	b.expr(&s.in, f)
	fn := f.s.fn
	if s.recursive {
		fn = &scopeFunc{up: f.s.fn}
		s.scope.fn = fn
	}
	body := newSymbols(f.s, fn)
	s.scope.loop = -1
	if s.recursive || readsFirst(s.body, "loop") {
		s.scope.loop = body.param("loop").slot
	}
	body.visitParams(s.target)
	body.visitStmts(s.body)
	b.settle(body)
	if s.cond != nil {
		cond := newSymbols(f.s, fn)
		cond.visitParams(s.target)
		cond.visitExpr(s.cond)
		b.settle(cond)
		s.scope.target = cloneTarget(s.target)
		b.target(s.scope.target, frame{s: cond})
		b.expr(&s.cond, frame{s: cond})
		s.scope.test = b.loads(cond)
	}
	b.target(s.target, frame{s: body})
	b.stmts(s.body, frame{s: body})
	s.scope.enter = b.loads(body)
	if s.other != nil {
		other := newSymbols(f.s, fn)
		other.visitStmts(s.other)
		b.settle(other)
		b.stmts(s.other, frame{s: other})
		s.scope.other = b.loads(other)
	}
}

// assignsLoop returns the line of an assignment to loop within a for loop, 0 if
// there is none.
func assignsLoop(s *forStmt) (line int) {
	target := func(x expr) {
		walkExpr(x, func(x expr) {
			if n, ok := x.(*name); ok && n.id == "loop" && line == 0 {
				line = n.line
			}
		})
	}
	walkStmt(s, func(st stmt) {
		switch st := st.(type) {
		case *forStmt:
			target(st.target)
		case *setStmt:
			target(st.target)
		case *setBlock:
			target(st.target)
		}
	}, func(expr) {})
	return line
}

func cloneTarget(x expr) expr {
	switch x := x.(type) {
	case *name:
		c := *x
		return &c
	case *tupleExpr:
		c := &tupleExpr{items: slices.Clone(x.items)}
		for i := range c.items {
			c.items[i] = cloneTarget(c.items[i])
		}
		return c
	}
	return x
}

func (b *binder) macro(def *macroDef, f frame) {
	fn := &scopeFunc{up: f.s.fn}
	s := newSymbols(f.s, fn)
	visit := func() {
		for _, p := range def.params {
			s.param(p.id)
		}
		s.visitExprs(def.defaults)
		s.visitStmts(def.body)
	}
	visit()
	m := &def.scope
	m.fn, m.caller, m.kwargs, m.varargs = fn, -1, -1, -1
	m.weight = 1
	for _, st := range def.body {
		m.weight += nodes(st) >> 4
	}
	named := func(id string) bool {
		return slices.ContainsFunc(def.params, func(p *name) bool { return p.id == id })
	}
	if readsFirst(def.body, "caller") {
		m.explicit = named("caller")
		if m.explicit {
			at := slices.IndexFunc(def.params, func(p *name) bool { return p.id == "caller" })
			if at < len(def.params)-len(def.defaults) {
				b.fail(syntaxError(def.line, "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a default."))
			}
		} else {
			m.caller = s.param("caller").slot
		}
	}
	if readsFirst(def.body, "kwargs") && !named("kwargs") {
		m.kwargs = s.param("kwargs").slot
	}
	if readsFirst(def.body, "varargs") && !named("varargs") {
		m.varargs = s.param("varargs").slot
	}
	visit()
	b.settle(s)
	inner := frame{s: s}
	for _, p := range def.params {
		m.params = append(m.params, s.refs[p.id].slot)
	}
	for i := range def.defaults {
		b.expr(&def.defaults[i], inner)
	}
	b.stmts(def.body, inner)
	m.enter = b.loads(s)
}

func (b *binder) target(x expr, f frame) {
	switch x := x.(type) {
	case *name:
		x.ref = b.ref(f.s.find(x.id), f.s.fn)
	case *attrTarget:
		b.target(x.ns, f)
	case *tupleExpr:
		for _, item := range x.items {
			b.target(item, f)
		}
	}
}

// filterChain binds the filters of a block, innermost first.
func (b *binder) filterChain(x *filter, f frame) {
	if x != nil {
		var e expr = x
		b.expr(&e, f)
	}
}

// expr binds an expression, and may put a simpler one in its place.
func (b *binder) expr(at *expr, f frame) {
	b.down(0)
	defer b.up()
	switch x := (*at).(type) {
	case nil:
	case *name:
		x.ref = b.ref(f.s.find(x.id), f.s.fn)
	case *condition:
		f.soft = true
		b.expr(&x.test, f)
		b.expr(&x.yes, f)
		b.expr(&x.no, f)
	case *filter:
		b.expr(&x.in, f)
		b.arguments(&x.args, f)
		x.fn = filters[x.name]
		if x.fn == nil && !f.soft {
			b.fail(syntaxError(x.line, "No filter named '%s'.", x.name))
		}
	case *test:
		b.expr(&x.in, f)
		b.arguments(&x.args, f)
		x.fn = tests[x.name]
		if len(x.args.list()) == 2 {
			x.plain = kinds[x.name]
		}
		if x.fn == nil && !f.soft {
			b.fail(syntaxError(x.line, "No test named '%s'.", x.name))
		}
	case *call:
		b.expr(&x.fn, f)
		b.arguments(&x.args, f)
	default:
		b.parts(x, f)
	}
	*at = fold(*at)
}

func (b *binder) arguments(a *arguments, f frame) {
	for i := range a.pos {
		b.expr(&a.pos[i], f)
	}
	for i := range a.named {
		b.expr(&a.named[i].x, f)
	}
	b.expr(&a.star, f)
	b.expr(&a.starStar, f)
}

func (b *binder) parts(x expr, f frame) {
	switch x := x.(type) {
	case *tupleExpr:
		b.list(x.items, f)
	case *listExpr:
		b.list(x.items, f)
	case *dictExpr:
		for i := range x.pairs {
			b.expr(&x.pairs[i].key, f)
			b.expr(&x.pairs[i].value, f)
		}
	case *binary:
		b.expr(&x.l, f)
		b.expr(&x.r, f)
	case *unary:
		b.expr(&x.x, f)
	case *not:
		b.expr(&x.x, f)
	case *logic:
		b.expr(&x.l, f)
		b.expr(&x.r, f)
	case *concat:
		b.list(x.parts, f)
	case *compare:
		b.expr(&x.first, f)
		for i := range x.rest {
			b.expr(&x.rest[i].x, f)
		}
	case *getAttr:
		b.expr(&x.x, f)
	case *getItem:
		b.expr(&x.x, f)
		b.expr(&x.index, f)
		if c, ok := x.index.(*constant); ok && c.v.k == kString {
			x.attr = newAttribute(c.v.str())
		}
	case *slice:
		b.expr(&x.x, f)
		b.expr(&x.start, f)
		b.expr(&x.stop, f)
		b.expr(&x.step, f)
	}
}

func (b *binder) list(items []expr, f frame) {
	for i := range items {
		b.expr(&items[i], f)
	}
}

// fold puts constants together; what could fail is left to the render.
func fold(x expr) expr {
	switch x := x.(type) {
	case *tupleExpr:
		if items, ok := constants(x.items); ok {
			return &constant{tuple(items...)}
		}
	case *listExpr:
		if items, ok := constants(x.items); ok {
			return &constant{List(items...)}
		}
	case *binary:
		l, ok := x.l.(*constant)
		r, ok2 := x.r.(*constant)
		if ok && ok2 && x.op == opAdd && l.v.k == kString && r.v.k == kString {
			return &constant{String(l.v.str() + r.v.str())}
		}
	case *unary:
		if c, ok := x.x.(*constant); ok && x.minus && c.v.k == kInt && c.v.n > 0 {
			return &constant{Int(-c.v.n)}
		}
	}
	return x
}

func constants(list []expr) ([]Value, bool) {
	items := make([]Value, len(list))
	for i, x := range list {
		c, ok := x.(*constant)
		if !ok {
			return nil, false
		}
		items[i] = c.v
	}
	return items, true
}
