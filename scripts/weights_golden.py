#!/usr/bin/env python3
"""weights_golden.py OUT_DIR: the golden files of package weights, made with the reference readers.

    python3 -m pip install gguf safetensors numpy ml_dtypes
    python3 scripts/weights_golden.py engine/native/weights/testdata

golden.gguf holds one tensor of every type the package reads, from random blocks
(scales are ordinary numbers, codes are any bits), and beside each NAME a float32
tensor NAME.want with what gguf.dequantize makes of it; also a metadata value of
every type. golden/ is the float part as a sharded safetensors folder.
"""
import json
import os
import sys

import gguf
import numpy as np
from safetensors.numpy import save_file

out = sys.argv[1]
rng = np.random.default_rng(1)
os.makedirs(out, exist_ok=True)

# Where each block keeps its binary16 scales, in bytes.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q4_K": [0, 2], "Q6_K": [208]}


def blocks(kind, rows, cols):
    per, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    b = rng.integers(0, 256, (rows, cols // per, size), dtype=np.uint8)
    for at in SCALES[kind]:
        d = rng.standard_normal((rows, cols // per)).astype(np.float16)
        d[0, 0] = np.float16(6e-8)  # a subnormal
        b[:, :, at:at + 2] = d.view(np.uint8).reshape(rows, -1, 2)
    return b.reshape(rows, -1)


w = gguf.GGUFWriter(os.path.join(out, "golden.gguf"), "golden")
w.add_string("a.string", "grüße")
w.add_uint8("a.uint8", 255)
w.add_int8("a.int8", -128)
w.add_uint16("a.uint16", 65535)
w.add_int16("a.int16", -32768)
w.add_uint32("a.uint32", 4294967295)
w.add_int32("a.int32", -2147483648)
w.add_uint64("a.uint64", 2**64 - 1)
w.add_int64("a.int64", -(2**63))
w.add_float32("a.float32", 0.5)
w.add_float64("a.float64", 0.1)
w.add_bool("a.bool", True)
w.add_array("a.strings", ["", "x", "wörter"])
w.add_array("a.ints", [1, -2, 3])
w.add_array("a.floats", [0.5, -1.5])
for kind in SCALES:
    t = gguf.GGMLQuantizationType[kind]
    b = blocks(kind, 3, 512)
    w.add_tensor(kind, b, raw_dtype=t)
    w.add_tensor(kind + ".want", gguf.dequantize(b, t).astype(np.float32))
f32 = rng.standard_normal((2, 48)).astype(np.float32)
f16 = f32.astype(np.float16)
bf16 = (f32.view(np.uint32) >> 16).astype(np.uint16)
wide = (bf16.astype(np.uint32) << 16).view(np.float32)
w.add_tensor("F32", f32)
w.add_tensor("F32.want", f32)
w.add_tensor("F16", f16)
w.add_tensor("F16.want", f16.astype(np.float32))
w.add_tensor("BF16", bf16.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
w.add_tensor("BF16.want", wide)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()

import ml_dtypes  # noqa: E402  (registers bfloat16 with numpy)

d = os.path.join(out, "golden")
os.makedirs(d, exist_ok=True)
shards = {
    "model-00001-of-00002.safetensors": {"F32": f32, "F32.want": f32, "F16": f16},
    "model-00002-of-00002.safetensors": {"F16.want": f16.astype(np.float32), "BF16": bf16.view(ml_dtypes.bfloat16), "BF16.want": wide,
                                         "ids": np.arange(4)},
}
for name, tensors in shards.items():
    save_file(tensors, os.path.join(d, name), metadata={"format": "pt"})
index = {"metadata": {"total_size": 0}, "weight_map": {t: f for f, ts in shards.items() for t in ts}}
json.dump(index, open(os.path.join(d, "model.safetensors.index.json"), "w"), indent=1)
