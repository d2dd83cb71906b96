package chat

import (
	"math/big"
	"strconv"
	"strings"
)

// tupleRule says what ends a list of expressions without brackets.
type tupleRule struct {
	simple      bool // names and literals only: the target of an assignment
	noCondition bool // an "if" does not belong to the expression
	brackets    bool // within brackets, where () is a tuple
	attributes  bool // ns.attr is a target too
	end         string
}

// assignTarget parses what can be assigned to; end is the keyword that follows.
func (p *parser) assignTarget(end string, attributes bool) (expr, error) {
	line := p.cur().line
	x, err := p.tuple(tupleRule{simple: true, end: end, attributes: attributes})
	if err != nil {
		return nil, err
	}
	if what := notAssignable(x); what != "" {
		return nil, syntaxError(line, "can't assign to '%s'", what)
	}
	return x, nil
}

// notAssignable names the kind of node that cannot be a target; empty if x can.
func notAssignable(x expr) string {
	switch x := x.(type) {
	case *name:
		return ""
	case *attrTarget:
		return ""
	case *tupleExpr:
		for _, item := range x.items {
			if notAssignable(item) != "" {
				return "tuple"
			}
		}
		return ""
	case *listExpr:
		return "list"
	case *dictExpr:
		return "dict"
	case *constant:
		return "const"
	}
	return "expression"
}

func (p *parser) targetName(t token) (*name, error) {
	switch t.text {
	case "true", "false", "none", "True", "False", "None":
		return nil, syntaxError(t.line, "can't assign to 'name'")
	}
	return &name{id: t.text, line: t.line}, nil
}

func (p *parser) tuple(rule tupleRule) (expr, error) {
	var items []expr
	isTuple := false
	for {
		if len(items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		if t := p.cur(); t.kind == tPrintEnd || t.kind == tBlockEnd || p.isOp(")") || rule.end != "" && p.isName(rule.end) {
			break
		}
		var x expr
		var err error
		switch {
		case rule.simple:
			x, err = p.primary(rule.attributes)
		case rule.noCondition:
			x, err = p.or()
		default:
			x, err = p.expression()
		}
		if err != nil {
			return nil, err
		}
		items = append(items, x)
		if !p.isOp(",") {
			break
		}
		isTuple = true
	}
	if !isTuple {
		if len(items) > 0 {
			return items[0], nil
		}
		if !rule.brackets {
			return nil, syntaxError(p.cur().line, "Expected an expression, got %s", pyRepr(p.cur().describe()))
		}
	}
	return &tupleExpr{items}, nil
}

// expression parses "yes if test else no" and what binds tighter.
func (p *parser) expression() (expr, error) {
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer p.unnest()
	line := p.cur().line
	x, err := p.or()
	for n := 0; err == nil && p.skipName("if"); n++ {
		if n == maxChain {
			return nil, tooLong(line)
		}
		c := &condition{yes: x, missing: &undefined{hint: "the inline if-expression on line " + strconv.Itoa(line) +
			" evaluated to false and no else section was defined."}}
		if c.test, err = p.or(); err != nil {
			return nil, err
		}
		if p.skipName("else") {
			c.no, err = p.expression()
		}
		x = c
		line = p.cur().line
	}
	return x, err
}

func tooLong(line int) error {
	return syntaxError(line, "more than %d operators in a row", maxChain)
}

// chain parses operands between operators that join to the left.
func (p *parser) chain(part func() (expr, error), join func() func(l, r expr) expr) (expr, error) {
	x, err := part()
	for n := 0; err == nil; n++ {
		op := join()
		if op == nil {
			break
		}
		if n == maxChain {
			return nil, tooLong(p.cur().line)
		}
		var y expr
		y, err = part()
		x = op(x, y)
	}
	return x, err
}

func (p *parser) or() (expr, error) {
	return p.chain(p.and, func() func(l, r expr) expr {
		if !p.skipName("or") {
			return nil
		}
		return func(l, r expr) expr { return &logic{or: true, l: l, r: r} }
	})
}

func (p *parser) and() (expr, error) {
	return p.chain(p.not, func() func(l, r expr) expr {
		if !p.skipName("and") {
			return nil
		}
		return func(l, r expr) expr { return &logic{l: l, r: r} }
	})
}

func (p *parser) not() (expr, error) {
	if !p.skipName("not") {
		return p.comparison()
	}
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer p.unnest()
	x, err := p.not()
	return &not{x}, err
}

func (p *parser) comparison() (expr, error) {
	first, err := p.sum()
	if err != nil {
		return nil, err
	}
	var rest []operand
	for {
		op, ok := p.compareOp()
		if !ok {
			break
		}
		x, err := p.sum()
		if err != nil {
			return nil, err
		}
		if rest = append(rest, operand{op, x}); len(rest) > maxChain {
			return nil, tooLong(p.cur().line)
		}
	}
	if rest == nil {
		return first, nil
	}
	return &compare{first, rest}, nil
}

func (p *parser) compareOp() (comparison, bool) {
	t := p.cur()
	if t.kind == tOperator {
		for op := cmpEQ; op <= cmpGE; op++ {
			if op.String() == t.text {
				p.next()
				return op, true
			}
		}
	}
	if p.skipName("in") {
		return cmpIn, true
	}
	if next := p.look(); p.isName("not") && next.kind == tName && next.text == "in" {
		p.pos += 2
		return cmpNotIn, true
	}
	return 0, false
}

// arithmetic returns the joiner of an operator among ops.
func (p *parser) arithmetic(ops string) func() func(l, r expr) expr {
	return func() func(l, r expr) expr {
		t := p.cur()
		if t.kind != tOperator || !strings.Contains(ops, " "+t.text+" ") {
			return nil
		}
		p.next()
		op := map[string]operator{"+": opAdd, "-": opSub, "*": opMul, "/": opDiv, "//": opFloorDiv, "%": opMod, "**": opPow}[t.text]
		return func(l, r expr) expr { return &binary{op: op, l: l, r: r} }
	}
}

func (p *parser) sum() (expr, error)     { return p.chain(p.concat, p.arithmetic(" + - ")) }
func (p *parser) product() (expr, error) { return p.chain(p.power, p.arithmetic(" * / // % ")) }
func (p *parser) power() (expr, error) {
	return p.chain(func() (expr, error) { return p.unary(true) }, p.arithmetic(" ** "))
}

func (p *parser) concat() (expr, error) {
	x, err := p.product()
	if err != nil || !p.isOp("~") {
		return x, err
	}
	parts := []expr{x}
	for p.skipOp("~") {
		if x, err = p.product(); err != nil {
			return nil, err
		}
		parts = append(parts, x)
	}
	return &concat{parts}, nil
}

func (p *parser) unary(filters bool) (expr, error) {
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer p.unnest()
	var x expr
	var err error
	switch {
	case p.skipOp("-"):
		x, err = p.unary(false)
		x = &unary{minus: true, x: x}
	case p.skipOp("+"):
		x, err = p.unary(false)
		x = &unary{x: x}
	default:
		x, err = p.primary(false)
	}
	if err == nil {
		x, err = p.postfix(x)
	}
	if err == nil && filters {
		x, err = p.filterExpr(x)
	}
	return x, err
}

func (p *parser) primary(attributes bool) (expr, error) {
	t := p.cur()
	switch t.kind {
	case tName:
		p.next()
		switch t.text {
		case "true", "True":
			return &constant{Bool(true)}, nil
		case "false", "False":
			return &constant{Bool(false)}, nil
		case "none", "None":
			return &constant{None()}, nil
		}
		n := &name{id: t.text, line: t.line, missing: &undefined{name: t.text}}
		if attributes && p.skipOp(".") {
			attr, err := p.expectKind(tName)
			return &attrTarget{ns: n, attr: attr.text}, err
		}
		return n, nil
	case tString:
		var b strings.Builder
		for p.cur().kind == tString {
			b.WriteString(p.next().text)
		}
		return &constant{String(b.String())}, nil
	case tInteger:
		p.next()
		n, ok := new(big.Int).SetString(t.text, 0)
		if t.text[0] == '0' && strings.Trim(t.text, "0") == "" {
			n, ok = new(big.Int), true
		}
		if !ok || len(t.text) > maxJSONDigits {
			return nil, syntaxError(t.line, "invalid integer literal")
		}
		return &constant{intValue(n)}, nil
	case tFloat:
		p.next()
		f, _ := strconv.ParseFloat(t.text, 64) // out of range is infinity, as in Python
		return &constant{Float(f)}, nil
	}
	return p.bracketed(t)
}

func (p *parser) bracketed(t token) (expr, error) {
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer p.unnest()
	switch {
	case p.skipOp("("):
		x, err := p.tuple(tupleRule{brackets: true})
		if err != nil {
			return nil, err
		}
		return x, p.expectOp(")")
	case p.skipOp("["):
		items, err := p.listItems("]")
		return &listExpr{items}, err
	case p.skipOp("{"):
		return p.dictItems()
	}
	return nil, syntaxError(t.line, "unexpected %s", pyRepr(t.describe()))
}

func (p *parser) listItems(end string) (items []expr, err error) {
	for !p.isOp(end) {
		if len(items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		if p.isOp(end) {
			break
		}
		x, err := p.expression()
		if err != nil {
			return nil, err
		}
		items = append(items, x)
	}
	return items, p.expectOp(end)
}

func (p *parser) dictItems() (expr, error) {
	d := &dictExpr{}
	for !p.isOp("}") {
		if len(d.pairs) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		if p.isOp("}") {
			break
		}
		key, err := p.expression()
		if err != nil {
			return nil, err
		}
		if err := p.expectOp(":"); err != nil {
			return nil, err
		}
		value, err := p.expression()
		if err != nil {
			return nil, err
		}
		d.pairs = append(d.pairs, pairExpr{key, value})
	}
	return d, p.expectOp("}")
}

// postfix parses subscripts, attributes and calls.
func (p *parser) postfix(x expr) (expr, error) {
	var err error
	for n := 0; err == nil; n++ {
		if n > maxChain {
			return nil, tooLong(p.cur().line)
		}
		switch {
		case p.isOp("."):
			x, err = p.attribute(x)
		case p.isOp("["):
			x, err = p.subscript(x)
		case p.isOp("("):
			x, err = p.call(x)
		default:
			return x, nil
		}
	}
	return nil, err
}

// filterExpr parses filters, tests and calls of what they give.
func (p *parser) filterExpr(x expr) (expr, error) {
	var err error
	for n := 0; err == nil; n++ {
		if n > maxChain {
			return nil, tooLong(p.cur().line)
		}
		switch {
		case p.isOp("|"):
			x, err = p.filters(x, false)
		case p.isName("is"):
			x, err = p.test(x)
		case p.isOp("("):
			x, err = p.call(x)
		default:
			return x, nil
		}
	}
	return nil, err
}

func (p *parser) attribute(x expr) (expr, error) {
	p.next()
	t := p.next()
	switch t.kind {
	case tName:
		return &getAttr{x: x, attr: newAttribute(t.text)}, nil
	case tInteger:
		n, err := strconv.ParseInt(t.text, 0, 64)
		if err != nil {
			return nil, syntaxError(t.line, "invalid integer literal")
		}
		return &getItem{x: x, index: &constant{Int(n)}}, nil
	}
	return nil, syntaxError(t.line, "expected name or number")
}

func (p *parser) subscript(x expr) (expr, error) {
	line := p.next().line
	var args []expr
	for !p.isOp("]") {
		if len(args) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		arg, err := p.subscripted()
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
	}
	p.next()
	if len(args) == 1 {
		if s, ok := args[0].(*slice); ok {
			s.x = x
			return s, nil
		}
		return &getItem{x: x, index: args[0]}, nil
	}
	for _, arg := range args {
		if _, ok := arg.(*slice); ok {
			return nil, syntaxError(line, "invalid syntax: a slice among several subscripts")
		}
	}
	return &getItem{x: x, index: &tupleExpr{args}}, nil
}

// subscripted parses an index or the parts of a slice.
func (p *parser) subscripted() (expr, error) {
	s := &slice{}
	var err error
	if !p.isOp(":") {
		if s.start, err = p.expression(); err != nil {
			return nil, err
		}
		if !p.isOp(":") {
			return s.start, nil
		}
	}
	p.next()
	if !p.isOp(":") && !p.isOp("]") && !p.isOp(",") {
		if s.stop, err = p.expression(); err != nil {
			return nil, err
		}
	}
	if p.skipOp(":") && !p.isOp("]") && !p.isOp(",") {
		s.step, err = p.expression()
	}
	return s, err
}

func (p *parser) call(x expr) (expr, error) {
	line := p.cur().line
	args, err := p.arguments()
	if err != nil {
		return nil, err
	}
	c := &call{fn: x, args: args, line: line}
	if get, ok := x.(*getAttr); ok {
		c.method = get.attr
	}
	return c, nil
}

func (p *parser) arguments() (a arguments, err error) {
	line := p.next().line
	wrong := func() error { return syntaxError(line, "invalid syntax for function call expression") }
	for n := 0; !p.isOp(")"); n++ {
		if n > 0 {
			if err := p.expectOp(","); err != nil {
				return a, err
			}
			if p.isOp(")") {
				break
			}
		}
		next := p.look()
		switch {
		case p.skipOp("*"):
			if a.star != nil || a.starStar != nil {
				return a, wrong()
			}
			a.star, err = p.expression()
		case p.skipOp("**"):
			if a.starStar != nil {
				return a, wrong()
			}
			a.starStar, err = p.expression()
		case p.cur().kind == tName && next.kind == tOperator && next.text == "=":
			if a.starStar != nil {
				return a, wrong()
			}
			key := p.next().text
			p.next()
			for _, other := range a.named {
				if other.name == key {
					return a, syntaxError(line, "keyword argument repeated: %s", key)
				}
			}
			var x expr
			x, err = p.expression()
			if a.named = append(a.named, namedExpr{key, x}); len(a.named) > maxArguments {
				return a, syntaxError(line, "more than %d named arguments", maxArguments)
			}
		default:
			if a.star != nil || a.starStar != nil || a.named != nil {
				return a, wrong()
			}
			var x expr
			x, err = p.expression()
			a.pos = append(a.pos, x)
		}
		if err != nil {
			return a, err
		}
	}
	return a, p.expectOp(")")
}

// dottedName parses the name of a filter or test.
func (p *parser) dottedName() (token, error) {
	t, err := p.expectKind(tName)
	for err == nil && p.skipOp(".") {
		var more token
		more, err = p.expectKind(tName)
		t.text += "." + more.text
	}
	return t, err
}

// filters parses "|name(args)" as often as it comes; with inline the first one
// comes without its bar.
func (p *parser) filters(x expr, inline bool) (expr, error) {
	for n := 0; inline || p.isOp("|"); n++ {
		if n > maxChain {
			return nil, tooLong(p.cur().line)
		}
		if !inline {
			p.next()
		}
		inline = false
		t, err := p.dottedName()
		if err != nil {
			return nil, err
		}
		f := &filter{in: x, name: t.text, line: t.line}
		if p.isOp("(") {
			if f.args, err = p.arguments(); err != nil {
				return nil, err
			}
		}
		x = f
	}
	return x, nil
}

func (p *parser) test(x expr) (expr, error) {
	p.next()
	negated := p.skipName("not")
	t, err := p.dottedName()
	if err != nil {
		return nil, err
	}
	n := &test{in: x, name: t.text, line: t.line}
	cur := p.cur()
	switch {
	case p.isOp("("):
		n.args, err = p.arguments()
	case p.isName("else"), p.isName("or"), p.isName("and"):
	case p.isName("is"):
		return nil, syntaxError(cur.line, "You cannot chain multiple tests with is")
	case cur.kind == tName || cur.kind == tString || cur.kind == tInteger || cur.kind == tFloat || p.isOp("[") || p.isOp("{"):
		var arg expr
		if arg, err = p.primary(false); err == nil {
			arg, err = p.postfix(arg)
		}
		n.args.pos = []expr{arg}
	}
	if err != nil {
		return nil, err
	}
	if negated {
		return &not{n}, nil
	}
	return n, nil
}
