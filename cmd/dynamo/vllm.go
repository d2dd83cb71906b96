package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// vllmCmd is 'worker --engine vllm' with the arguments of the reference's module
// of that name.
type vllmCmd struct {
	Args []string `arg:"" optional:"" help:"Arguments of 'dynamo worker' and of 'vllm serve' in any order; --model names the model."`
}

// Run starts the worker.
func (c *vllmCmd) Run(a *app, kctx *kong.Context) error {
	if slices.Contains(c.Args, "--help") || slices.Contains(c.Args, "-h") {
		fmt.Fprintln(a.stdout, "dynamo vllm is 'dynamo worker --engine vllm' with the reference's names of flags: --model names the model, and what 'dynamo worker' does not know goes to 'vllm serve'. The flags of 'dynamo worker':")
		return a.dispatch([]string{"worker", "--help"})
	}
	args, err := vllmArgs(c.Args, workerFlagKinds(kctx.Model.Node))
	if err != nil {
		return usageError{error: err}
	}
	return a.dispatch(args)
}

// workerFlagKinds tells of each flag of 'dynamo worker' whether it stands alone.
func workerFlagKinds(app *kong.Node) map[string]bool {
	kinds := map[string]bool{}
	for _, n := range app.Children {
		if n.Name != "worker" {
			continue
		}
		for _, group := range n.AllFlags(false) {
			for _, f := range group {
				for _, name := range append([]string{f.Name}, f.Aliases...) {
					kinds[name] = f.IsBool()
				}
			}
		}
	}
	return kinds
}

// vllmsOwn are the flags that our worker has for its mocker and vLLM for itself.
var vllmsOwn = []string{"block-size", "num-gpu-blocks-override", "data-parallel-size"}

// vllmModes are the reference's older names of a mode.
var vllmModes = map[string]string{"is-prefill-worker": "--disaggregation-mode=prefill", "is-decode-worker": "--disaggregation-mode=decode"}

// vllmArgs sorts the arguments of the reference's module into those of our worker
// and those of vLLM, which stand behind --. Names that both know are ours, but for
// those that only make sense to vLLM.
func vllmArgs(args []string, worker map[string]bool) ([]string, error) {
	ours, theirs, model := []string{"worker"}, []string(nil), ""
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			theirs = append(theirs, args[i+1:]...)
			break
		}
		name, value, joined := strings.Cut(strings.TrimPrefix(args[i], "--"), "=")
		if !strings.HasPrefix(args[i], "--") {
			theirs = append(theirs, args[i]) // the value of a flag of theirs
			continue
		}
		if mode, ok := vllmModes[name]; ok {
			ours = append(ours, mode)
			continue
		}
		alone, known := worker[name]
		known = known && !slices.Contains(vllmsOwn, name)
		wants := name == "model" || name == "served-model-name" || known && !alone
		if wants && !joined {
			if i++; i == len(args) {
				return nil, errors.New("--" + name + " wants a value")
			}
			value = args[i]
		}
		switch {
		case name == "model":
			model = value
		case name == "served-model-name":
			ours = append(ours, "--model-name="+value)
		case wants:
			ours = append(ours, "--"+name+"="+value)
		case known:
			ours = append(ours, args[i])
		default:
			theirs = append(theirs, args[i])
		}
	}
	if model == "" {
		return nil, errors.New("--model is missing: the folder or Hugging Face id of the model to serve")
	}
	ours = append(ours, "--engine=vllm", model)
	if len(theirs) > 0 {
		ours = append(append(ours, "--"), theirs...)
	}
	return ours, nil
}
