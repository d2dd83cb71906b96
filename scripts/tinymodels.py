#!/usr/bin/env python3
"""tinymodels.py OUT_DIR: tiny random models for the tests of package model, with
the logits transformers computes from them.

    python3 -m pip install torch transformers safetensors gguf
    python3 scripts/tinymodels.py engine/native/model/testdata/tiny

For each shape: NAME/ in Hugging Face layout, NAME.gguf with the same weights, and
NAME.want/model.safetensors with "logits" (float32, one row for every token) of
NAME.want/tokens.json. The weights are larger than freshly initialised ones, so
that attention and activations matter.
"""
import json
import os
import shutil
import sys

import gguf
import torch
import transformers
from safetensors.torch import save_file

out = sys.argv[1]
COMMON = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              vocab_size=250, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0)
MODELS = {
    # Llama 3.1: llama3 rope scaling, whose three ranges all occur in a head of 32.
    "llama3": (transformers.LlamaConfig, transformers.LlamaForCausalLM, torch.bfloat16,
               dict(head_dim=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
                    rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                                         high_freq_factor=4.0, original_max_position_embeddings=64))),
    # Llama with linear rope scaling and biases in attention.
    "linear": (transformers.LlamaConfig, transformers.LlamaForCausalLM, torch.float16,
               dict(rms_norm_eps=1e-6, attention_bias=True, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0))),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, torch.float16,
              dict(rms_norm_eps=1e-6, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1000000.0))),
    # Qwen3: heads larger than hidden/heads, each normalised.
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, torch.bfloat16,
              dict(head_dim=32, rms_norm_eps=1e-6, tie_word_embeddings=True,
                   rope_parameters=dict(rope_type="default", rope_theta=1000000.0))),
}
GGUF_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.down_proj": "ffn_down", "mlp.gate_proj": "ffn_gate",
              "mlp.up_proj": "ffn_up", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


def gguf_name(name):
    flat = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in flat:
        return flat[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"


def permute(w, heads):
    """llama.cpp's order of query and key rows: the halves of a head alternate."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(path, model, config, dtype):
    arch = config.model_type
    rope = config.rope_parameters
    w = gguf.GGUFWriter(path, arch)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    w.add_block_count(config.num_hidden_layers)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_rope_dimension_count(head_dim)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "llama3":
        plain = 1.0 / (rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
        w.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy())
    for name, t in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        t = t.detach()
        if arch == "llama" and "q_proj" in name:
            t = permute(t, config.num_attention_heads)
        if arch == "llama" and "k_proj" in name:
            t = permute(t, config.num_key_value_heads)
        t = t.contiguous()
        if t.dim() == 1:
            w.add_tensor(gguf_name(name), t.numpy())
        elif dtype == torch.bfloat16:
            w.add_tensor(gguf_name(name), t.to(dtype).view(torch.uint8).numpy(), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(gguf_name(name), t.to(dtype).numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


os.makedirs(out, exist_ok=True)
for name, (config_class, model_class, dtype, more) in MODELS.items():
    torch.manual_seed(7)
    config = config_class(**COMMON, **more)
    config.architectures = [model_class.__name__]
    model = model_class(config).eval()
    with torch.no_grad():
        for n, p in model.named_parameters():
            spread = 0.3 if n.endswith("bias") else 0.18
            p.copy_((torch.randn_like(p) * spread + (1.0 if "norm" in n else 0.0)).to(dtype).float())
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    config.dtype = dtype
    config.save_pretrained(folder)
    state = {n: t.to(dtype).contiguous() for n, t in model.state_dict().items() if n != "lm_head.weight" or not config.tie_word_embeddings}
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    write_gguf(os.path.join(out, name + ".gguf"), model, config, dtype)
    tokens = torch.randint(3, COMMON["vocab_size"], (1, 80))
    with torch.no_grad():
        logits = model(tokens).logits[0].float().contiguous()
    want = os.path.join(out, name + ".want")
    os.makedirs(want, exist_ok=True)
    save_file({"logits": logits}, os.path.join(want, "model.safetensors"))
    json.dump({"transformers": transformers.__version__, "torch": torch.__version__, "tokens": tokens[0].tolist()}, open(os.path.join(want, "tokens.json"), "w"))
    print(name, sum(p.numel() for p in model.parameters()), "parameters, logits up to", float(logits.abs().max()))
