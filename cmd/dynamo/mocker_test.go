package main

import (
	"slices"
	"strings"
	"testing"
)

// The reference's command lines work with the module's name replaced, or are
// refused by the name of the flag.
func TestMockerArgs(t *testing.T) {
	worker := map[string]bool{"speedup-ratio": false, "num-workers": false, "max-running": false, "step-tokens": false, "startup-time": false, "discovery-backend": false, "rpc-unix": true, "model-name": false, "perf-model": false, "prefix-caching": true, "block-size": false,
		"preemption-mode": false, "disaggregation-mode": false, "stagger-delay": false, "kv-transfer-bandwidth": false, "kv-transfer-timing-mode": false}
	for _, c := range []struct{ in, want, err string }{
		{in: "--model-path M --num-workers 4 --speedup-ratio=10", want: "worker --engine=mocker --num-workers=4 --speedup-ratio=10 M"},
		{in: "--model-path=M --max-num-seqs 8 --max-num-batched-tokens 64 --no-enable-prefix-caching --enable-chunked-prefill", want: "worker --engine=mocker --max-running=8 --step-tokens=64 --no-prefix-caching --chunked-prefill M"},
		{in: "--startup-time 2.5 --model-path M --planner-profile-data D --no-rpc-unix", want: "worker --engine=mocker --startup-time=2.5s --perf-model=D --no-rpc-unix M"},
		{in: "--model-path M --preemption-mode lifo --engine-type vllm --disaggregation-mode agg", want: "worker --engine=mocker --preemption-mode=lifo --disaggregation-mode=agg M"},
		{in: "--model-path M --is-prefill-worker --stagger-delay 0.5", want: "worker --engine=mocker --disaggregation-mode=prefill --stagger-delay=0.5s M"},
		{in: "--is-decode-worker --model-path M --stagger-delay -1", want: "worker --engine=mocker --disaggregation-mode=decode --stagger-delay=-1s M"},
		{in: "--model-path M --kv-transfer-bandwidth 64 --kv-transfer-timing-mode=destination_missing", want: "worker --engine=mocker --kv-transfer-bandwidth=64 --kv-transfer-timing-mode=destination_missing M"},
		{in: "--model-path M --engine-type sglang", err: "only vllm"},
		{in: "--model-path M --bootstrap-ports 5000", err: "--bootstrap-ports is not supported"},
		{in: "--num-workers 3", err: "--model-path is missing"},
		{in: "--model-path", err: "wants a value"},
		{in: "M", err: "--model-path names the model"},
	} {
		got, err := mockerArgs(strings.Fields(c.in), worker)
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
