package chat

// walksContent looks for a loop over the content of a message, as vLLM does to
// tell templates that take lists of parts: directly, through a variable, or in
// a macro that is called with the content.
func walksContent(body []stmt) bool {
	w := &contentWalk{roles: map[string]role{"messages": roleMessages}, macros: map[string]*macroDef{}}
	// What a name may stand for depends on other names: repeat until nothing new
	// is found, for as many rounds as anything but mischief needs.
	w.changed = true
	for round := 0; w.changed && !w.found && round < 10; round++ {
		w.changed = false
		for _, s := range body {
			walkStmt(s, w.stmt, w.expr)
		}
	}
	return w.found
}

// role is what a name may stand for; several at once, for frames are ignored.
type role uint8

const (
	roleMessages role = 1 << iota // the conversation or a part of it
	roleMessage
	roleContent
)

type contentWalk struct {
	roles          map[string]role
	macros         map[string]*macroDef
	changed, found bool
}

func (w *contentWalk) mark(target expr, what role) {
	if n, ok := target.(*name); ok && w.roles[n.id]|what != w.roles[n.id] {
		w.roles[n.id] |= what
		w.changed = true
	}
}

func (w *contentWalk) stmt(s stmt) {
	switch s := s.(type) {
	case *setStmt:
		w.mark(s.target, w.of(s.x))
	case *forStmt:
		in := w.of(s.in)
		if in&roleMessages != 0 {
			w.mark(s.target, roleMessage)
		}
		w.found = w.found || in&roleContent != 0
	case *macroStmt:
		if w.macros[s.def.name] == nil {
			w.macros[s.def.name] = s.def
			w.changed = true
		}
	}
}

// expr follows arguments into macros.
func (w *contentWalk) expr(x expr) {
	walkExpr(x, func(x expr) {
		c, ok := x.(*call)
		if !ok {
			return
		}
		n, ok := c.fn.(*name)
		if !ok || w.macros[n.id] == nil {
			return
		}
		def := w.macros[n.id]
		for i, arg := range c.args.pos {
			if i < len(def.params) {
				w.mark(def.params[i], w.of(arg))
			}
		}
		for _, arg := range c.args.named {
			for _, p := range def.params {
				if p.id == arg.name {
					w.mark(p, w.of(arg.x))
				}
			}
		}
	})
}

// of says what x may stand for; filters and slices change nothing about that.
func (w *contentWalk) of(x expr) role {
	switch x := x.(type) {
	case *name:
		return w.roles[x.id]
	case *filter:
		return w.of(x.in)
	case *slice:
		return w.of(x.x) &^ roleMessage
	case *condition:
		return w.of(x.yes) | w.of(x.no)
	case *getAttr:
		return w.field(x.x, x.attr.name)
	case *call:
		if get, ok := x.fn.(*getAttr); ok && get.attr.name == "get" && len(x.args.pos) > 0 {
			if c, ok := x.args.pos[0].(*constant); ok && c.v.k == kString {
				return w.field(get.x, c.v.str())
			}
		}
	case *getItem:
		if c, ok := x.index.(*constant); ok && c.v.k == kString {
			return w.field(x.x, c.v.str())
		}
		if w.of(x.x)&roleMessages != 0 {
			return roleMessage
		}
	}
	return 0
}

func (w *contentWalk) field(x expr, name string) role {
	if name == "content" && w.of(x)&roleMessage != 0 {
		return roleContent
	}
	return 0
}
