package chat

// expr is an expression of a template; its fields other than the syntax are
// filled in by bind.
type expr interface {
	eval(r *run) (Value, error)
}

// stmt is a statement of a template.
type stmt interface {
	exec(r *run) (flow, error)
}

// flow says how a statement ended.
type flow uint8

const (
	flowNext flow = iota
	flowBreak
	flowContinue
)

// Expressions.
type (
	constant struct{ v Value }

	// name reads a variable, or is the target of an assignment.
	name struct {
		id   string
		line int
		ref  ref
		// missing is what reading yields while the variable is not there.
		missing *undefined
	}
	// attrTarget is ns.attr as the target of an assignment.
	attrTarget struct {
		ns   *name
		attr string
	}
	tupleExpr struct{ items []expr }
	listExpr  struct{ items []expr }
	dictExpr  struct{ pairs []pairExpr }

	binary struct {
		op   operator
		l, r expr
	}
	unary struct {
		minus bool
		x     expr
	}
	not struct{ x expr }
	// logic is "and" and "or".
	logic struct {
		or   bool
		l, r expr
	}
	concat  struct{ parts []expr }
	compare struct {
		first expr
		rest  []operand
	}
	condition struct {
		test, yes expr
		no        expr // nil: undefined
		missing   *undefined
	}
	getAttr struct {
		x    expr
		attr *attribute
	}
	getItem struct {
		x, index expr
		attr     *attribute // of an index that is a constant string
	}
	slice struct{ x, start, stop, step expr }
	call  struct {
		fn     expr
		args   arguments
		line   int
		method *attribute // set where fn is x.method
	}
	filter struct {
		in   expr // nil: the text of the enclosing block
		name string
		args arguments
		line int
		fn   filterFunc // nil if there is none of that name
	}
	test struct {
		in   expr
		name string
		args arguments
		line int
		fn   testFunc
		// plain is set for a test of the kind of value only.
		plain func(Value) bool
	}
)

type pairExpr struct{ key, value expr }

// operand is one link of a chain of comparisons.
type operand struct {
	op comparison
	x  expr
}

// operator is a binary arithmetic operator.
type operator uint8

const (
	opAdd operator = iota
	opSub
	opMul
	opDiv
	opFloorDiv
	opMod
	opPow
)

func (o operator) String() string {
	return [...]string{"+", "-", "*", "/", "//", "%", "** or pow()"}[o]
}

// comparison is a comparing operator.
type comparison uint8

const (
	cmpEQ comparison = iota
	cmpNE
	cmpLT
	cmpLE
	cmpGT
	cmpGE
	cmpIn
	cmpNotIn
)

func (c comparison) String() string {
	return [...]string{"==", "!=", "<", "<=", ">", ">=", "in", "not in"}[c]
}

// arguments are those of a call.
type arguments struct {
	pos      []expr
	named    []namedExpr
	star     expr // *args, or nil
	starStar expr // **kwargs, or nil
}

type namedExpr struct {
	name string
	x    expr
}

// Statements.
type (
	text   struct{ s string }
	output struct {
		items []expr
		line  int
	}
	ifStmt struct {
		tests  []expr
		bodies [][]stmt
		lines  []int
		other  []stmt
	}
	forStmt struct {
		target    expr
		in        expr
		cond      expr // nil: none
		body      []stmt
		other     []stmt
		recursive bool
		line      int
		scope     forScope
	}
	setStmt struct {
		target expr
		x      expr
		line   int
	}
	setBlock struct {
		target expr
		filter *filter // outermost; nil: none
		body   []stmt
		line   int
		enter  []load
	}
	macroStmt struct {
		target *name
		def    *macroDef
	}
	callBlock struct {
		call *call
		def  *macroDef
		line int
	}
	// generation marks what the model is to learn; it renders as its body does.
	generation struct {
		def *macroDef
	}
	filterBlock struct {
		filter *filter
		body   []stmt
		line   int
		enter  []load
	}
	withStmt struct {
		targets []expr
		values  []expr
		body    []stmt
		line    int
		enter   []load
	}
	block struct {
		name  string
		body  []stmt
		fn    *scopeFunc
		enter []load
	}
	// refused is a statement that loads other templates.
	refused struct {
		line  int
		names []*name
	}
	breakStmt    struct{ line int }
	continueStmt struct{ line int }
)

// macroDef is the definition of a macro or of the body of a call block.
type macroDef struct {
	name     string
	params   []*name
	defaults []expr // of the last params
	body     []stmt
	line     int
	scope    macroScope
}
