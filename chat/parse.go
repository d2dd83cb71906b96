package chat

import (
	"strings"
)

// parser turns tokens into a tree; it follows jinja2's parser rule by rule.
type parser struct {
	tokens []token
	pos    int
	depth  int
	// waiting holds the end tags each open statement waits for, tags their names.
	waiting [][]string
	tags    []string
	// loops counts the for loops around a statement within its function, for
	// break and continue.
	loops int
}

func (p *parser) cur() token { return p.tokens[p.pos] }

func (p *parser) look() token {
	if p.pos+1 < len(p.tokens) {
		return p.tokens[p.pos+1]
	}
	return p.tokens[p.pos]
}

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != tEOF {
		p.pos++
	}
	return t
}

func (p *parser) isOp(op string) bool {
	t := p.cur()
	return t.kind == tOperator && t.text == op
}

func (p *parser) isName(name string) bool {
	t := p.cur()
	return t.kind == tName && t.text == name
}

func (p *parser) skipOp(op string) bool {
	if p.isOp(op) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) skipName(name string) bool {
	if p.isName(name) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expected(what string) error {
	t := p.cur()
	if t.kind == tEOF {
		return syntaxError(t.line, "unexpected end of template, expected '%s'.", what)
	}
	return syntaxError(t.line, "expected token '%s', got %s", what, pyRepr(t.describe()))
}

func (p *parser) expectOp(op string) error {
	if !p.skipOp(op) {
		return p.expected(op)
	}
	return nil
}

func (p *parser) expectKind(k tokenKind) (token, error) {
	if p.cur().kind != k {
		what := token{kind: k}.describe()
		if k == tName {
			what = "name"
		}
		return token{}, p.expected(what)
	}
	return p.next(), nil
}

// nest bounds the depth of what is being parsed; every call needs an unnest.
func (p *parser) nest() error {
	p.depth++
	if p.depth > maxNesting {
		return syntaxError(p.cur().line, "more than %d levels of nesting", maxNesting)
	}
	return nil
}

func (p *parser) unnest() { p.depth-- }

// statements parses statements up to one of the end tags (none: the end of the
// template), which is left as the current token.
func (p *parser) statements(ends ...string) ([]stmt, error) {
	if ends != nil {
		p.waiting = append(p.waiting, ends)
		defer func() { p.waiting = p.waiting[:len(p.waiting)-1] }()
	}
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer p.unnest()
	var body []stmt
	var out *output
	for {
		t := p.cur()
		switch t.kind {
		case tEOF:
			return body, nil
		case tData:
			p.next()
			out = nil
			body = append(body, &text{t.text})
		case tPrintBegin:
			p.next()
			x, err := p.tuple(tupleRule{})
			if err != nil {
				return nil, err
			}
			if _, err := p.expectKind(tPrintEnd); err != nil {
				return nil, err
			}
			if out == nil {
				out = &output{line: t.line}
				body = append(body, out)
			}
			out.items = append(out.items, x)
		case tBlockBegin:
			out = nil
			p.next()
			if cur := p.cur(); cur.kind == tName && contains(ends, cur.text) {
				return body, nil
			}
			s, err := p.statement()
			if err != nil {
				return nil, err
			}
			body = append(body, s)
			if _, err := p.expectKind(tBlockEnd); err != nil {
				return nil, err
			}
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// block parses the body of a statement after its opening tag; with drop the end
// tag's name is consumed.
func (p *parser) block(drop bool, ends ...string) ([]stmt, error) {
	p.skipOp(":")
	if _, err := p.expectKind(tBlockEnd); err != nil {
		return nil, err
	}
	body, err := p.statements(ends...)
	if err != nil {
		return nil, err
	}
	if p.cur().kind == tEOF {
		p.waiting = append(p.waiting, ends)
		return nil, p.unexpected("")
	}
	if drop {
		p.next()
	}
	return body, nil
}

// unexpected explains a tag nobody waits for, or the end of the template.
func (p *parser) unexpected(tag string) error {
	var b strings.Builder
	if tag == "" {
		b.WriteString("Unexpected end of template.")
	} else {
		b.WriteString("Encountered unknown tag '" + tag + "'.")
	}
	if n := len(p.waiting); n > 0 {
		looking := "'" + strings.Join(p.waiting[n-1], "' or '") + "'"
		nested := false
		for _, ends := range p.waiting {
			nested = nested || tag != "" && contains(ends, tag)
		}
		if nested {
			b.WriteString(" You probably made a nesting mistake. Jinja is expecting this tag, but currently looking for " + looking + ".")
		} else {
			b.WriteString(" Jinja was looking for the following tags: " + looking + ".")
		}
	}
	if n := len(p.tags); n > 0 {
		b.WriteString(" The innermost block that needs to be closed is '" + p.tags[n-1] + "'.")
	}
	return syntaxError(p.cur().line, "%s", b.String())
}

func (p *parser) statement() (stmt, error) {
	t := p.cur()
	if t.kind != tName {
		return nil, syntaxError(t.line, "tag name expected")
	}
	parse, ok := statementParsers[t.text]
	if !ok {
		return nil, p.unexpected(t.text)
	}
	p.tags = append(p.tags, t.text)
	p.next()
	s, err := parse(p, t.line)
	if err == nil {
		p.tags = p.tags[:len(p.tags)-1]
	}
	return s, err
}

// statementParsers parse what follows a tag's name.
var statementParsers map[string]func(p *parser, line int) (stmt, error)

func init() {
	statementParsers = map[string]func(p *parser, line int) (stmt, error){
		"for":        (*parser).forStmt,
		"if":         (*parser).ifStmt,
		"set":        (*parser).setStmt,
		"macro":      (*parser).macroStmt,
		"call":       (*parser).callBlock,
		"filter":     (*parser).filterBlock,
		"with":       (*parser).withStmt,
		"print":      (*parser).printStmt,
		"generation": (*parser).generation,
		"break":      (*parser).breakStmt,
		"continue":   (*parser).continueStmt,
		"block":      (*parser).namedBlock,
		"include":    (*parser).include,
		"extends":    (*parser).include,
		"import":     (*parser).importStmt,
		"from":       (*parser).fromStmt,
		"autoescape": (*parser).autoescape,
	}
}

func (p *parser) setStmt(line int) (stmt, error) {
	target, err := p.assignTarget("", true)
	if err != nil {
		return nil, err
	}
	if p.skipOp("=") {
		x, err := p.tuple(tupleRule{})
		return &setStmt{target: target, x: x, line: line}, err
	}
	f, err := p.filters(nil, false)
	if err != nil {
		return nil, err
	}
	outer, _ := f.(*filter)
	body, err := p.block(true, "endset")
	return &setBlock{target: target, filter: outer, body: body, line: line}, err
}

func (p *parser) forStmt(line int) (stmt, error) {
	s := &forStmt{line: line}
	var err error
	if s.target, err = p.assignTarget("in", false); err != nil {
		return nil, err
	}
	if !p.skipName("in") {
		return nil, p.expected("in")
	}
	if s.in, err = p.tuple(tupleRule{noCondition: true, end: "recursive"}); err != nil {
		return nil, err
	}
	if p.skipName("if") {
		if s.cond, err = p.expression(); err != nil {
			return nil, err
		}
	}
	s.recursive = p.skipName("recursive")
	p.loops++
	s.body, err = p.block(false, "endfor", "else")
	p.loops--
	if err != nil {
		return nil, err
	}
	if p.next().text == "else" {
		if s.other, err = p.block(true, "endfor"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (p *parser) ifStmt(line int) (stmt, error) {
	s := &ifStmt{}
	for {
		cond, err := p.tuple(tupleRule{noCondition: true})
		if err != nil {
			return nil, err
		}
		body, err := p.block(false, "elif", "else", "endif")
		if err != nil {
			return nil, err
		}
		s.tests, s.bodies, s.lines = append(s.tests, cond), append(s.bodies, body), append(s.lines, line)
		end := p.next()
		line = end.line
		if end.text == "elif" {
			continue
		}
		if end.text == "else" {
			if s.other, err = p.block(true, "endif"); err != nil {
				return nil, err
			}
		}
		return s, nil
	}
}

// function parses a body that is a function of its own, to which the loops
// around it do not belong.
func (p *parser) function(end string) ([]stmt, error) {
	loops := p.loops
	p.loops = 0
	body, err := p.block(true, end)
	p.loops = loops
	return body, err
}

func (p *parser) signature(def *macroDef) error {
	if err := p.expectOp("("); err != nil {
		return err
	}
	for !p.isOp(")") {
		if len(def.params) > 0 {
			if err := p.expectOp(","); err != nil {
				return err
			}
		}
		t, err := p.expectKind(tName)
		if err != nil {
			return err
		}
		param, err := p.targetName(t)
		if err != nil {
			return err
		}
		for _, other := range def.params {
			if other.id == param.id {
				return syntaxError(t.line, "duplicate argument '%s' in function definition", param.id)
			}
		}
		if p.skipOp("=") {
			x, err := p.expression()
			if err != nil {
				return err
			}
			def.defaults = append(def.defaults, x)
		} else if len(def.defaults) > 0 {
			return syntaxError(t.line, "non-default argument follows default argument")
		}
		if def.params = append(def.params, param); len(def.params) > maxArguments {
			return syntaxError(t.line, "more than %d parameters", maxArguments)
		}
	}
	return p.expectOp(")")
}

func (p *parser) macroStmt(line int) (stmt, error) {
	t, err := p.expectKind(tName)
	if err != nil {
		return nil, err
	}
	target, err := p.targetName(t)
	if err != nil {
		return nil, err
	}
	def := &macroDef{name: t.text, line: line}
	if err := p.signature(def); err != nil {
		return nil, err
	}
	def.body, err = p.function("endmacro")
	return &macroStmt{target: target, def: def}, err
}

func (p *parser) callBlock(line int) (stmt, error) {
	def := &macroDef{name: "caller", line: line}
	if p.isOp("(") {
		if err := p.signature(def); err != nil {
			return nil, err
		}
	}
	x, err := p.expression()
	if err != nil {
		return nil, err
	}
	c, ok := x.(*call)
	if !ok {
		return nil, syntaxError(line, "expected call")
	}
	def.body, err = p.function("endcall")
	return &callBlock{call: c, def: def, line: line}, err
}

func (p *parser) generation(line int) (stmt, error) {
	def := &macroDef{name: "caller", line: line}
	var err error
	def.body, err = p.function("endgeneration")
	return &generation{def: def}, err
}

func (p *parser) filterBlock(line int) (stmt, error) {
	f, err := p.filters(nil, true)
	if err != nil {
		return nil, err
	}
	body, err := p.block(true, "endfilter")
	return &filterBlock{filter: f.(*filter), body: body, line: line}, err
}

func (p *parser) withStmt(line int) (stmt, error) {
	s := &withStmt{line: line}
	for p.cur().kind != tBlockEnd {
		if len(s.targets) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		target, err := p.assignTarget("", false)
		if err != nil {
			return nil, err
		}
		if err := p.expectOp("="); err != nil {
			return nil, err
		}
		x, err := p.expression()
		if err != nil {
			return nil, err
		}
		s.targets, s.values = append(s.targets, target), append(s.values, x)
	}
	var err error
	s.body, err = p.block(true, "endwith")
	return s, err
}

func (p *parser) printStmt(line int) (stmt, error) {
	s := &output{line: line}
	for p.cur().kind != tBlockEnd {
		if len(s.items) > 0 {
			if err := p.expectOp(","); err != nil {
				return nil, err
			}
		}
		x, err := p.expression()
		if err != nil {
			return nil, err
		}
		s.items = append(s.items, x)
	}
	return s, nil
}

func (p *parser) breakStmt(line int) (stmt, error) {
	if p.loops == 0 {
		return nil, syntaxError(line, "'break' outside loop")
	}
	return &breakStmt{line}, nil
}

func (p *parser) continueStmt(line int) (stmt, error) {
	if p.loops == 0 {
		return nil, syntaxError(line, "'continue' not properly in loop")
	}
	return &continueStmt{line}, nil
}

func (p *parser) namedBlock(line int) (stmt, error) {
	t, err := p.expectKind(tName)
	if err != nil {
		return nil, err
	}
	p.skipName("scoped")
	p.skipName("required")
	body, err := p.function("endblock")
	p.skipName(t.text)
	return &block{name: t.text, body: body}, err
}

func (p *parser) include(line int) (stmt, error) {
	_, err := p.expression()
	for err == nil && p.cur().kind == tName {
		p.next()
	}
	return &refused{line: line}, err
}

func (p *parser) importStmt(line int) (stmt, error) {
	if _, err := p.expression(); err != nil {
		return nil, err
	}
	if !p.skipName("as") {
		return nil, p.expected("as")
	}
	t, err := p.expectKind(tName)
	for err == nil && p.cur().kind == tName {
		p.next()
	}
	return &refused{line: line, names: []*name{{id: t.text, line: t.line}}}, err
}

func (p *parser) fromStmt(line int) (stmt, error) {
	if _, err := p.expression(); err != nil {
		return nil, err
	}
	if !p.skipName("import") {
		return nil, p.expected("import")
	}
	s := &refused{line: line}
	for {
		t, err := p.expectKind(tName)
		if err != nil {
			return nil, err
		}
		if p.skipName("as") {
			if t, err = p.expectKind(tName); err != nil {
				return nil, err
			}
		}
		s.names = append(s.names, &name{id: t.text, line: t.line})
		for p.cur().kind == tName {
			p.next()
		}
		if !p.skipOp(",") {
			return s, nil
		}
	}
}

func (p *parser) autoescape(line int) (stmt, error) {
	return nil, syntaxError(line, "autoescape is not supported: prompts are not HTML")
}
