package perfmodel

import "strings"

// Machine describes a preset: what a worker of its kind looks like to others.
type Machine struct {
	// Name is what Preset takes.
	Name string
	// GPU and GPUs say what the worker runs on, Network what it serves.
	GPU     string
	GPUs    int
	Network string
	// Source says where the figures are from.
	Source string
	// Measured is true where coefficients come from a measurement of this machine
	// and network; otherwise they are derived as Source says.
	Measured bool

	// BlockTokens is the size of a KV block and KVBlocks how many fit.
	BlockTokens, KVBlocks int
	// KVBytesPerToken is the size of a token's KV, all layers and devices.
	KVBytesPerToken int
	// MaxBatchedTokens and MaxSequences are the limits of a step.
	MaxBatchedTokens, MaxSequences int
}

// preset is a machine with its cluster, and coefficients where they are measured.
type preset struct {
	name     string
	cluster  cluster
	measured *ClosedForm
	kvTokens float64 // measured; 0 derives it
	source   string
}

// presets are those of Presets, in its order.
var presets = []preset{
	{name: "h100-8b", cluster: cluster{h100, dense8B, 1}},
	{
		name: "h200-8b", cluster: cluster{h200, dense8B, 1}, kvTokens: 839648,
		// First tokens 10.0, 26.9 and 208.1 ms after 128, 1000 and 8000 cold prompt
		// tokens; gaps of 4.87, 4.90 and 5.21 ms behind them; gaps of 7.7 and 18.5 ms
		// with 64 and 256 sequences of about 1135 tokens.
		measured: &ClosedForm{7.61e-3, 18.5e-6, 1.65e-9, 4.86e-3, 3.5e-6, 44.5e-9},
		source:   "measured: vLLM 0.26.0 (bf16, CUDA graphs, Rust front end, KV cache of 839,648 tokens), one H200, single requests of 128 to 8000 tokens and 64 and 256 at a time; first-token times include the front end",
	},
	{name: "b200-8b", cluster: cluster{b200, dense8B, 1}},
	{name: "h100-70b-tp8", cluster: cluster{h100, dense70B, 8}},
	{name: "h200-70b-tp8", cluster: cluster{h200, dense70B, 8}},
	{name: "b200-70b-tp8", cluster: cluster{b200, dense70B, 8}},
	{
		name: "h100-70b-fp8-tp2", cluster: cluster{h100, fp8(dense70B), 2},
		// First tokens 47.77 and 406.77 ms after 500 and 5000 prompt tokens, gaps of
		// 18.91 and 18.58 ms behind them, one request at a time. Attention, sequences and
		// KV are the roofline's.
		measured: &ClosedForm{13.05e-3, 68.4e-6, 4.14e-9, 18.5e-3, 10.2e-6, 80.2e-9},
		source:   "published: NVIDIA NIM for LLMs 1.8.0 performance tables, Llama-3.3-70B-Instruct, 2 × H100 80G, fp8, TP2, concurrency 1 (docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance); costs per sequence, per KV token and of attention are derived by roofline",
	},
	{name: "h100-r1-tp16", cluster: cluster{h100, moeR1, 16}},
	{name: "h200-r1-tp8", cluster: cluster{h200, moeR1, 8}},
	{name: "b200-r1-tp8", cluster: cluster{b200, moeR1, 8}},
}

// fp8 is n with weights of one byte.
func fp8(n network) network {
	n.weightBytes = 1
	n.name = strings.Replace(n.name, "bf16", "fp8", 1)
	return n
}

// Presets lists the machines, smallest model first.
func Presets() []Machine {
	machines := make([]Machine, len(presets))
	for i := range presets {
		machines[i] = presets[i].machine()
	}
	return machines
}

// Preset returns the model and description of a machine by its name.
func Preset(name string) (Model, Machine, error) {
	var names []string
	for i := range presets {
		p := &presets[i]
		if p.name == name {
			m, err := p.model()
			return m, p.machine(), err
		}
		names = append(names, p.name)
	}
	return nil, Machine{}, invalid("preset", "there is no machine %.40q; there are %s", name, strings.Join(names, ", "))
}

func (p *preset) model() (Model, error) {
	switch {
	case p.measured != nil:
		m := *p.measured
		return &m, m.Validate()
	case p.cluster.network.experts > 0:
		return NewTable(p.cluster.table())
	}
	m := p.cluster.closedForm()
	return &m, m.Validate()
}

func (p *preset) machine() Machine {
	c := &p.cluster
	m := Machine{
		Name: p.name, GPU: c.gpu.name, GPUs: int(c.devices), Network: c.network.name,
		Source: p.source, Measured: p.measured != nil,
		BlockTokens: 16, KVBytesPerToken: int(c.network.kvBytesPerToken),
		MaxBatchedTokens: 8192, MaxSequences: 1024,
	}
	tokens := p.kvTokens
	if tokens == 0 {
		tokens = c.kvTokens()
	}
	m.KVBlocks = int(tokens) / m.BlockTokens
	if m.Source == "" {
		m.Source = c.source()
	}
	return m
}
