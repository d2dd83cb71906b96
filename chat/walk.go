package chat

// walkStmt calls onStmt for s and every statement within and onExpr for every
// expression of theirs (not those within expressions), in reading order.
func walkStmt(s stmt, onStmt func(stmt), onExpr func(expr)) {
	onStmt(s)
	all := func(bodies ...[]stmt) {
		for _, body := range bodies {
			for _, st := range body {
				walkStmt(st, onStmt, onExpr)
			}
		}
	}
	exprs := func(list ...expr) {
		for _, x := range list {
			if x != nil {
				onExpr(x)
			}
		}
	}
	switch s := s.(type) {
	case *output:
		exprs(s.items...)
	case *ifStmt:
		for i, cond := range s.tests {
			exprs(cond)
			all(s.bodies[i])
		}
		all(s.other)
	case *forStmt:
		exprs(s.in, s.cond)
		all(s.body, s.other)
	case *setStmt:
		exprs(s.x)
	case *setBlock:
		if s.filter != nil {
			exprs(s.filter)
		}
		all(s.body)
	case *macroStmt:
		exprs(s.def.defaults...)
		all(s.def.body)
	case *callBlock:
		exprs(s.call)
		exprs(s.def.defaults...)
		all(s.def.body)
	case *generation:
		all(s.def.body)
	case *filterBlock:
		exprs(s.filter)
		all(s.body)
	case *withStmt:
		exprs(s.values...)
		all(s.body)
	case *block:
		all(s.body)
	}
}

// nodes counts the statements and expressions of s.
func nodes(s stmt) (n int) {
	walkStmt(s, func(stmt) { n++ }, func(x expr) {
		walkExpr(x, func(expr) { n++ })
	})
	return n
}

// readsFirst reports whether body reads a variable somewhere that is not, in
// reading order, preceded by an assignment to it. Frames do not matter: so
// jinja2 decides whether a body wants loop, caller, kwargs or varargs.
func readsFirst(body []stmt, id string) bool {
	r := &reader{id: id}
	r.stmts(body)
	return r.found
}

type reader struct {
	id          string
	found, done bool
}

func (r *reader) expr(x expr) {
	walkExpr(x, func(x expr) {
		if n, ok := x.(*name); ok && n.id == r.id && !r.done {
			r.found, r.done = true, true
		}
	})
}

func (r *reader) exprs(list ...expr) {
	for _, x := range list {
		r.expr(x)
	}
}

func (r *reader) target(x expr) {
	switch x := x.(type) {
	case *name:
		r.done = r.done || x.id == r.id
	case *tupleExpr:
		for _, item := range x.items {
			r.target(item)
		}
	}
}

func (r *reader) stmts(body []stmt) {
	for _, s := range body {
		r.stmt(s)
	}
}

// stmt visits in the order of the fields of jinja2's nodes.
func (r *reader) stmt(s stmt) {
	switch s := s.(type) {
	case *output:
		r.exprs(s.items...)
	case *ifStmt:
		for i, cond := range s.tests {
			r.expr(cond)
			r.stmts(s.bodies[i])
		}
		r.stmts(s.other)
	case *forStmt:
		r.target(s.target)
		r.expr(s.in)
		r.stmts(s.body)
		r.stmts(s.other)
		r.expr(s.cond)
	case *setStmt:
		r.target(s.target)
		r.expr(s.x)
	case *setBlock:
		r.target(s.target)
		if s.filter != nil {
			r.expr(s.filter)
		}
		r.stmts(s.body)
	case *macroStmt:
		r.def(s.def)
	case *callBlock:
		r.expr(s.call)
		r.def(s.def)
	case *generation:
		r.stmts(s.def.body)
	case *filterBlock:
		r.stmts(s.body)
		r.expr(s.filter)
	case *withStmt:
		for _, t := range s.targets {
			r.target(t)
		}
		r.exprs(s.values...)
		r.stmts(s.body)
	}
}

func (r *reader) def(def *macroDef) {
	for _, p := range def.params {
		r.target(p)
	}
	r.exprs(def.defaults...)
	r.stmts(def.body)
}
