package chat

// Limits bound one render, so that a hostile template or a hostile conversation
// ends in an error.
type Limits struct {
	// Steps counts loop iterations, calls and the elements that filters visit,
	// plus one for each 16 bytes of text built on the way.
	Steps int
	// Depth bounds macro calls and recursive loops within one another, and the
	// nesting of values that are printed or compared.
	Depth int
	// OutputBytes bounds the prompt, and with it every string a template builds.
	OutputBytes int
}

// DefaultLimits returns limits far above what real templates need on prompts of
// a million tokens: ten million steps (under two seconds), 200 levels, 64 MiB.
func DefaultLimits() Limits {
	return Limits{Steps: 10_000_000, Depth: 200, OutputBytes: 64 << 20}
}

// Limits that are not a render's own.
const (
	// maxSourceBytes bounds the text of a template; the longest published ones
	// are some 20 KB.
	maxSourceBytes = 1 << 20
	// maxNesting bounds how deep statements and expressions nest in a template.
	maxNesting = 150
	// maxChain bounds how many binary operators follow one another without
	// brackets.
	maxChain = 500
	// maxHeight bounds the height of the tree, which is what the stack a render
	// needs depends on.
	maxHeight = 600
	// maxArguments bounds parameters of a macro and named arguments of a call.
	maxArguments = 255
	// maxName bounds the bytes of a name.
	maxName = 1024
	// maxJSONDepth bounds the nesting of arrays and objects in ParseJSON.
	maxJSONDepth = 200
	// maxJSONDigits is Python's bound for the digits of an integer literal.
	maxJSONDigits = 4300
	// maxRange is jinja2's bound for range() in its sandbox.
	maxRange = 100_000
	// maxTemplates bounds the named templates of a Set.
	maxTemplates = 64
)
