package vllm

import (
	"errors"
	"os/exec"
	"syscall"
)

// cause is a known reason for a server's end.
type cause struct {
	text   string // what it leaves in the output
	advice string
	final  bool   // another start ends the same way
	drop   string // the argument without which it starts
	line   string // of the output, that holds text
}

const (
	adviceModel   = "there is no such model; check its name or path, or HF_TOKEN for a private one"
	adviceFolder  = "there is no model at this path or of this name, or its config.json is missing"
	adviceGPU     = "it finds no GPU; check nvidia-smi and that this container or user may use the GPU, or install vLLM for the CPU"
	adviceCache   = "the KV cache is smaller than the context; lower --max-model-len after --, or give the cache more memory (VLLM_CPU_KVCACHE_SPACE, --gpu-memory-utilization)"
	adviceFree    = "the GPU's memory is in use by another process; end it, or lower --gpu-memory-utilization after --"
	adviceInstall = "vLLM is not installed completely, or for other libraries than this machine has; install it again"
	adviceRemote  = "the model brings code of its own; if you trust it, give --trust-remote-code after --"
)

// causes, the particular before the general.
var causes = []cause{
	{text: "unrecognized arguments: " + flagScaleOut, drop: flagScaleOut, final: true, advice: "this vllm does not know " + flagScaleOut},
	{text: "unrecognized arguments: " + flagTokenDetails, drop: flagTokenDetails, final: true, advice: "this vllm does not know " + flagTokenDetails},
	{text: "unrecognized arguments", final: true, advice: "this vllm does not know one of the arguments; see the last lines"},
	{text: "invalid choice: 'serve'", final: true, advice: "this command is no vllm, or a very old one"},
	{text: "error: argument --", final: true, advice: "this vllm does not take the value of one of the arguments; see the last lines"},
	{text: "No common block size for", final: true, advice: "this block size is not possible on this machine; on a CPU it is a multiple of 32: leave --kv-cache-block-size out, or give 32"},
	{text: "ddress already in use", advice: "one of its ports, for requests or for KV events, is in use by another process; end that process, or give another with --port or --kv-events-config after --"},
	{text: "No package metadata was found for vllm", final: true, advice: "vllm-cpu is installed and its command asks for a package named vllm; add a stub: a folder vllm-VERSION.dist-info with a METADATA file (Metadata-Version, Name: vllm, Version) in site-packages"},
	{text: "Failed to infer device type", final: true, advice: adviceGPU},
	{text: "Found no NVIDIA driver", final: true, advice: adviceGPU},
	{text: "No CUDA GPUs are available", final: true, advice: adviceGPU},
	{text: "CUDA driver version is insufficient", final: true, advice: "the GPU's driver is older than this vLLM needs; upgrade the driver, or install a vLLM for its CUDA version"},
	{text: "no kernel image is available", final: true, advice: "this vLLM was not built for this GPU; install one that was"},
	{text: "cannot open shared object file", final: true, advice: adviceInstall},
	{text: "undefined symbol", final: true, advice: adviceInstall},
	{text: "ModuleNotFoundError", final: true, advice: adviceInstall},
	{text: "CUDA out of memory", final: true, advice: "the GPU's memory is too small, or another process has it; lower --gpu-memory-utilization or --max-model-len after --"},
	{text: "HIP out of memory", final: true, advice: "the GPU's memory is too small, or another process has it; lower --gpu-memory-utilization or --max-model-len after --"},
	{text: "No available memory for the cache blocks", final: true, advice: "there is no memory left for the KV cache; raise --gpu-memory-utilization, or lower --max-model-len after --"},
	{text: "larger than the maximum number of tokens that can be stored in KV cache", final: true, advice: adviceCache},
	{text: "larger than the available KV cache memory", final: true, advice: adviceCache},
	{text: "on startup is less than", final: true, advice: adviceFree},
	{text: "MemoryError", final: true, advice: "the machine's memory is too small for the model and its KV cache; lower VLLM_CPU_KVCACHE_SPACE or --max-model-len"},
	{text: "Cannot allocate memory", final: true, advice: "the machine's memory is too small for the model and its KV cache; lower VLLM_CPU_KVCACHE_SPACE or --max-model-len"},
	{text: "No space left on device", final: true, advice: "a disk, or /dev/shm of this container, is full"},
	{text: "gated repo", final: true, advice: "the model's makers ask for consent: give it on the model's page and set HF_TOKEN"},
	{text: "Repository Not Found", final: true, advice: adviceModel},
	{text: "is not a local folder and is not a valid model identifier", final: true, advice: adviceModel},
	{text: "Invalid repository ID or local directory", final: true, advice: adviceFolder},
	{text: "Can't load the configuration of", final: true, advice: adviceFolder},
	{text: "Cannot find any model weights", final: true, advice: "the model's folder has no weights; fetch it again"},
	{text: "Error while deserializing header", final: true, advice: "a weight file of the model is damaged; fetch it again"},
	{text: "are not supported for now", final: true, advice: "this vLLM does not know the model's architecture; a newer one may"},
	{text: "trust_remote_code=True", final: true, advice: adviceRemote},
	{text: "is greater than the derived max_model_len", final: true, advice: "the model has a shorter context than --context-length or --max-model-len asks for"},
	{text: "outgoing traffic has been disabled", final: true, advice: "the model is not on this machine and HF_HUB_OFFLINE forbids to fetch it"},
}

// explain finds the known reason for a server's end. It is called when that is over.
func explain(p *process) cause {
	for _, c := range causes {
		if line, found := p.out.find(c.text); found {
			c.line = line
			return c
		}
	}
	if killed(p.err) {
		return cause{advice: "it was killed from outside, most often for want of memory (see dmesg)"}
	}
	return cause{}
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	s, ok := exit.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}
