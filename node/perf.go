package node

import "github.com/dynamo-go/dynamo/perfmodel"

// OpenPerfModel returns the model of time that --perf-model names: a machine, or a
// file or folder. kvTokens is how many tokens of KV the machine holds; 0 is unknown.
func OpenPerfModel(name string) (model perfmodel.Model, kvTokens int, err error) {
	m := MockerConfig{PerfModel: name}
	if err := m.load(); err != nil {
		return nil, 0, err
	}
	return m.Model, m.kvTokens, nil
}
