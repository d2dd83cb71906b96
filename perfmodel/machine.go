package perfmodel

import (
	"fmt"
	"math"
)

// gpu is what a datasheet says of one device.
type gpu struct {
	name           string
	memoryBytes    float64
	bytesPerSecond float64 // device memory
	bf16, fp8      float64 // dense FLOP/s
	linkBytes      float64 // per second to the others, one direction
	layerSeconds   float64 // assumed floor of one layer of a large MoE: routing, exchange, small kernels
}

// The datasheets: H100 SXM, H200 SXM, and B200 as in HGX B200.
var (
	h100 = gpu{"H100 SXM", 80e9, 3.35e12, 989e12, 1979e12, 450e9, 200e-6}
	h200 = gpu{"H200 SXM", 141e9, 4.8e12, 989e12, 1979e12, 450e9, 200e-6}
	b200 = gpu{"B200", 180e9, 7.7e12, 2250e12, 4500e12, 900e9, 120e-6}
)

// network is a model's shape.
type network struct {
	name                  string
	layers, hidden        float64
	weightBytes           float64 // of one parameter
	alwaysParams          float64 // read in every step: all but routed experts and the input embedding
	headParams            float64 // of these, the output head: computed for the last position only
	expertParams          float64 // routed experts, all of them
	experts, activeExpert float64 // per layer
	kvBytesPerToken       float64
	attentionFLOPs        float64 // per pair of tokens, all layers
}

// The networks. KV in bf16; attention is 4·heads·head size a layer, for multi-head
// latent attention 2·heads·(192 + 128).
var (
	dense8B = network{name: "Llama-3.1-8B shape, bf16", layers: 32, hidden: 4096, weightBytes: 2,
		alwaysParams: 7.5e9, headParams: 0.525e9, kvBytesPerToken: 131072, attentionFLOPs: 4 * 32 * 4096}
	dense70B = network{name: "Llama-3.1-70B shape, bf16", layers: 80, hidden: 8192, weightBytes: 2,
		alwaysParams: 69.5e9, headParams: 1.05e9, kvBytesPerToken: 327680, attentionFLOPs: 4 * 80 * 8192}
	moeR1 = network{name: "DeepSeek-R1 shape, fp8", layers: 61, hidden: 7168, weightBytes: 1,
		alwaysParams: 16.2e9, headParams: 0.93e9, expertParams: 653.9e9, experts: 256, activeExpert: 8,
		kvBytesPerToken: 70272, attentionFLOPs: 2 * 61 * 128 * (192 + 128)}
)

// What is assumed where nothing was measured. The first five are what the
// measurement behind h200-8b amounts to, so the roofline reproduces it. Held against
// the published figures of h100-70b-fp8-tp2 it is 9 % short in decode and 16 % in the
// time to the first token of 5000 tokens. The others nobody has checked.
const (
	weightBandwidth = 0.72    // share of memory bandwidth while reading weights
	kvBandwidth     = 0.61    // while reading KV
	matmulShare     = 0.76    // share of FLOP/s, dense prefill
	attentionShare  = 0.32    // share of bf16 FLOP/s in prefill's attention
	sequenceShare   = 0.19    // of a prompt token's time, for one more decoding sequence: the rest hides behind weights
	moeMatmulShare  = 0.25    // share of FLOP/s, prefill of a large MoE
	linkShare       = 0.7     // share of link bandwidth in all-reduces of prefill
	reduceSeconds   = 10e-6   // one small all-reduce, two a layer
	stepSeconds     = 0.5e-3  // launch and scheduling of a step
	promptSeconds   = 2.75e-3 // more for a prompt: tokenizing, first answer
	memoryShare     = 0.9     // of device memory for weights, activations and KV
	activationBytes = 3e9     // a device
)

// cluster is a model on devices, tensor-parallel.
type cluster struct {
	gpu     gpu
	network network
	devices float64
}

// flops is the dense FLOP/s of all devices in the weights' type.
func (c *cluster) flops() float64 {
	if c.network.weightBytes == 1 {
		return c.gpu.fp8 * c.devices
	}
	return c.gpu.bf16 * c.devices
}

// fixedSeconds is what a decode step costs before any sequence: weights that n
// tokens touch, and latencies.
func (c *cluster) fixedSeconds(n float64) float64 {
	w := &c.network
	params := w.alwaysParams
	layer := 0.0
	if w.experts > 0 {
		params += w.expertParams * (1 - math.Pow(1-w.activeExpert/w.experts, n))
		layer = c.gpu.layerSeconds
	} else if c.devices > 1 {
		layer = 2 * reduceSeconds
	}
	return stepSeconds + w.layers*layer + params*w.weightBytes/(c.devices*c.gpu.bytesPerSecond*weightBandwidth)
}

// tokenSeconds is the time of one prompt token without attention.
func (c *cluster) tokenSeconds() float64 {
	w := &c.network
	share := matmulShare
	params := w.alwaysParams - w.headParams
	if w.experts > 0 {
		share = moeMatmulShare
		params += w.expertParams * w.activeExpert / w.experts
	}
	reduce := 2 * w.layers * w.hidden * 2 * 2 * (c.devices - 1) / c.devices / (c.gpu.linkBytes * linkShare)
	return 2*params/(c.flops()*share) + reduce
}

func (c *cluster) pairSeconds() float64 {
	return c.network.attentionFLOPs / (c.gpu.bf16 * c.devices * attentionShare)
}

func (c *cluster) kvSeconds() float64 {
	return c.network.kvBytesPerToken / (c.devices * c.gpu.bytesPerSecond * kvBandwidth)
}

// closedForm is the roofline of a dense model.
func (c *cluster) closedForm() ClosedForm {
	fixed := c.fixedSeconds(1)
	return ClosedForm{
		PrefillFixedSeconds: fixed + promptSeconds, PrefillSecondsPerToken: c.tokenSeconds(), PrefillSecondsPerPair: c.pairSeconds(),
		DecodeFixedSeconds: fixed, DecodeSecondsPerSequence: sequenceShare * c.tokenSeconds(), DecodeSecondsPerKVToken: c.kvSeconds(),
	}
}

// table is the roofline of a mixture of experts, whose steps read more of the
// weights the more sequences they have: no closed form of ours bends so.
func (c *cluster) table() TableData {
	d := TableData{Prefill: PrefillGrid{ContextTokens: []float64{0, 8192, 131072}}}
	for n := 1.0; n <= 32768; n *= 2 {
		var row []float64
		for _, context := range d.Prefill.ContextTokens {
			row = append(row, c.fixedSeconds(n)+promptSeconds+n*c.tokenSeconds()+n*(context+n/2)*c.pairSeconds())
		}
		d.Prefill.NewTokens = append(d.Prefill.NewTokens, n)
		d.Prefill.Seconds = append(d.Prefill.Seconds, row)
	}
	for n := 1.0; n <= 1024; n *= 2 {
		for _, context := range []float64{64, 131072} {
			d.Decode = append(d.Decode, DecodePoint{n, n * context, c.fixedSeconds(n) + n*sequenceShare*c.tokenSeconds() + n*context*c.kvSeconds()})
		}
	}
	return d
}

// kvTokens is how many tokens of KV fit beside the weights.
func (c *cluster) kvTokens() float64 {
	w := &c.network
	free := c.devices*(c.gpu.memoryBytes*memoryShare-activationBytes) - (w.alwaysParams+w.expertParams)*w.weightBytes
	return free / w.kvBytesPerToken
}

// source says where the roofline's figures are from.
func (c *cluster) source() string {
	g := &c.gpu
	peak, of, share := g.bf16, "bf16", matmulShare
	if c.network.weightBytes == 1 {
		peak, of, share = g.fp8, "fp8", moeMatmulShare
	}
	s := fmt.Sprintf("roofline, not measured: %d × %s of %.3g TB/s, %.4g dense %s TFLOP/s, %.3g GB (NVIDIA datasheet); assumed %.0f %% of the bandwidth for weights, %.0f %% for KV, %.0f %% of the FLOP/s in prefill",
		int(c.devices), g.name, g.bytesPerSecond/1e12, peak/1e12, of, g.memoryBytes/1e9, 100*weightBandwidth, 100*kvBandwidth, 100*share)
	switch {
	case c.network.experts > 0:
		s += fmt.Sprintf(", %.0f µs a layer for routing and exchange, KV divided over the devices (data-parallel attention)", 1e6*g.layerSeconds)
	case c.devices > 1:
		s += fmt.Sprintf(", %.0f µs an all-reduce", 1e6*reduceSeconds)
	}
	return s
}
