#!/usr/bin/env python3
"""gguf_to_hf.py IN.gguf OUT_DIR: a folder in Hugging Face layout, float32 and exactly
dequantized, from a GGUF of the Llama architecture with SmolLM2's tokenizer.

    python3 -m pip install gguf safetensors numpy

It is the way to check a GGUF against transformers, and its twin against the GGUF.
"""
import json
import os
import sys

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file

NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "ffn_down": "mlp.down_proj", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj"}


def unpermute(w, heads):
    """Undoes llama.cpp's order of query and key rows, which alternates the halves of a head."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def model_config(field, tokens, tied):
    heads = field["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "bos_token_id": field["tokenizer.ggml.bos_token_id"], "eos_token_id": field["tokenizer.ggml.eos_token_id"],
        "hidden_size": field["llama.embedding_length"], "intermediate_size": field["llama.feed_forward_length"],
        "num_hidden_layers": field["llama.block_count"], "num_attention_heads": heads,
        "num_key_value_heads": field.get("llama.attention.head_count_kv", heads), "head_dim": field["llama.embedding_length"] // heads,
        "max_position_embeddings": field["llama.context_length"],
        "rms_norm_eps": float(f"{field['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": float(field["llama.rope.freq_base"]), "rope_scaling": None, "tie_word_embeddings": tied,
        "torch_dtype": "float32", "vocab_size": tokens,
    }


def tokenizer_files(field):
    """tokenizer.json and tokenizer_config.json: byte-level BPE with single digits."""
    tokens, types = field["tokenizer.ggml.tokens"], field["tokenizer.ggml.token_type"]
    special = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, (t, kind) in enumerate(zip(tokens, types)) if kind == 3]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None, "decoder": {**byte_level, "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": field["tokenizer.ggml.merges"]},
    }
    config = {
        "add_prefix_space": False, "added_tokens_decoder": {str(s["id"]): {k: v for k, v in s.items() if k != "id"} for s in special},
        "bos_token": tokens[field["tokenizer.ggml.bos_token_id"]], "eos_token": tokens[field["tokenizer.ggml.eos_token_id"]],
        "unk_token": "<|endoftext|>", "clean_up_tokenization_spaces": False, "chat_template": field["tokenizer.chat_template"],
        "model_max_length": field["llama.context_length"], "tokenizer_class": "GPT2Tokenizer",
    }
    return tokenizer, config


def main(source, out):
    os.makedirs(out, exist_ok=True)
    reader = GGUFReader(source)
    field = {k: f.contents() for k, f in reader.fields.items()}
    if field["general.architecture"] != "llama":
        sys.exit(f"{source} is of architecture {field['general.architecture']}; only llama is converted")
    heads = field["llama.attention.head_count"]
    tensors = {}
    for t in reader.tensors:
        w = dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(n) for n in t.shape[::-1]])
        flat = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
        name = flat.get(t.name)
        if name is None:
            _, layer, part, kind = t.name.split(".")
            name = f"model.layers.{layer}.{NAMES[part]}.{kind}"
            if part == "attn_q":
                w = unpermute(w, heads)
            if part == "attn_k":
                w = unpermute(w, field.get("llama.attention.head_count_kv", heads))
        tensors[name] = np.ascontiguousarray(w)
    save_file(tensors, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    tokenizer, config = tokenizer_files(field)
    files = {
        "config.json": model_config(field, len(field["tokenizer.ggml.tokens"]), "lm_head.weight" not in tensors),
        "generation_config.json": {"bos_token_id": field["tokenizer.ggml.bos_token_id"], "eos_token_id": field["tokenizer.ggml.eos_token_id"], "do_sample": False},
        "tokenizer.json": tokenizer, "tokenizer_config.json": config,
    }
    for name, content in files.items():
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            json.dump(content, f, ensure_ascii=False, indent=1)
    print(f"{out}: {len(tensors)} tensors, {sum(w.size for w in tensors.values())} values")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
