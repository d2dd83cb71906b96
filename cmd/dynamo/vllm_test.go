package main

import (
	"slices"
	"strings"
	"testing"
)

// The reference's quick start works with the module's name replaced.
func TestVLLMArgs(t *testing.T) {
	worker := map[string]bool{"engine-command": false, "discovery-backend": false, "store-kv": false, "namespace": false, "rpc-unix": true, "model-name": false, "block-size": false}
	for _, c := range []struct{ in, want, err string }{
		{in: `--model M --store-kv file --kv-events-config {"a":1}`, want: `worker --store-kv=file --engine=vllm M -- --kv-events-config {"a":1}`},
		{in: `--max-model-len 2048 --model=M --enforce-eager`, want: `worker --engine=vllm M -- --max-model-len 2048 --enforce-eager`},
		{in: `--model M --served-model-name n --no-such=1`, want: `worker --model-name=n --engine=vllm M -- --no-such=1`},
		{in: `--model M --rpc-unix --namespace a -- --store-kv x`, want: `worker --rpc-unix --namespace=a --engine=vllm M -- --store-kv x`},
		{in: `--model M --block-size 32 --data-parallel-size=2`, want: `worker --engine=vllm M -- --block-size 32 --data-parallel-size=2`},
		{in: `--model M --is-prefill-worker`, want: `worker --disaggregation-mode=prefill --engine=vllm M`},
		{in: `--is-decode-worker --model M --enforce-eager`, want: `worker --disaggregation-mode=decode --engine=vllm M -- --enforce-eager`},
		{in: `--store-kv file`, err: "--model is missing"},
		{in: `--model`, err: "wants a value"},
	} {
		got, err := vllmArgs(strings.Fields(c.in), worker)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", c.in, err, c.err)
			}
		case err != nil || !slices.Equal(got, strings.Fields(c.want)):
			t.Errorf("%s: got %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}
