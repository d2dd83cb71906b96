package perfmodel_test

import (
	"fmt"

	"github.com/dynamo-go/dynamo/perfmodel"
)

func ExamplePreset() {
	m, machine, err := perfmodel.Preset("h200-8b")
	if err != nil {
		fmt.Println(err)
		return
	}
	prompt := perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: 1000}}}
	decode := perfmodel.Batch{Decodes: 64, KVTokens: 64 * 1000}
	fmt.Printf("%d × %s, %d KV blocks of %d tokens\n", machine.GPUs, machine.GPU, machine.KVBlocks, machine.BlockTokens)
	fmt.Printf("a prompt of 1000 tokens %.1f ms, a step of 64 sequences %.1f ms\n", 1000*m.StepSeconds(&prompt), 1000*m.StepSeconds(&decode))
	// Output:
	// 1 × H200 SXM, 52478 KV blocks of 16 tokens
	// a prompt of 1000 tokens 26.9 ms, a step of 64 sequences 7.9 ms
}

func ExampleFit() {
	var log []perfmodel.Observation
	for n := 1; n <= 32; n++ {
		kv := 1000*n + 100*(n%5)
		log = append(log, perfmodel.Observation{
			Batch:   perfmodel.Batch{Decodes: n, KVTokens: kv},
			Seconds: 5e-3 + 1e-5*float64(n) + 4e-8*float64(kv),
		})
	}
	f, err := perfmodel.Fit(log)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.1f ms + %.1f µs a sequence + %.1f ns a KV token, rank %d\n", 1e3*f.Model.DecodeFixedSeconds,
		1e6*f.Model.DecodeSecondsPerSequence, 1e9*f.Model.DecodeSecondsPerKVToken, f.Rank)
	// Output:
	// 5.0 ms + 10.0 µs a sequence + 40.0 ns a KV token, rank 3
}
