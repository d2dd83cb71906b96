#!/usr/bin/env python3
"""lora.py OUTDIR [SEED]: a small random LoRA adapter for SmolLM2-135M, in the layout
of peft, for tests of adapters against a real server:

    python3 scripts/vllm/lora.py /tmp/ada
    vllm serve MODEL --enable-lora --lora-modules ada=/tmp/ada

It is the same for the same seed. It changes attention enough that greedy answers
differ from the model's own. Nothing but Python's standard library is needed.
"""
import json
import os
import random
import struct
import sys

LAYERS, HIDDEN, RANK, ALPHA = 30, 576, 8, 16
OUT = {"q_proj": 9 * 64, "v_proj": 3 * 64}  # heads of 64
SCALE = 0.25  # of B; A keeps the size of what it reads


def tensors(seed):
    """Names, shapes and values of the adapter's weights, in order."""
    rng = random.Random(seed)
    for layer in range(LAYERS):
        for module, out in OUT.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_"
            yield name + "A.weight", [RANK, HIDDEN], [rng.gauss(0, HIDDEN ** -0.5) for _ in range(RANK * HIDDEN)]
            yield name + "B.weight", [out, RANK], [rng.gauss(0, SCALE) for _ in range(out * RANK)]


def write_safetensors(path, parts):
    """The form is: the header's length in 8 bytes, little-endian; the header in JSON,
    padded with spaces to a multiple of 8; the values."""
    header, data = {"__metadata__": {"format": "pt"}}, bytearray()
    for name, shape, values in parts:
        begin = len(data)
        data += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 1
    os.makedirs(out, exist_ok=True)
    write_safetensors(os.path.join(out, "adapter_model.safetensors"), tensors(seed))
    with open(os.path.join(out, "adapter_config.json"), "w") as f:
        json.dump({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "r": RANK, "lora_alpha": ALPHA, "target_modules": sorted(OUT), "lora_dropout": 0.0, "bias": "none",
            "fan_in_fan_out": False, "inference_mode": True, "modules_to_save": None,
        }, f, indent=1)


if __name__ == "__main__":
    main()
