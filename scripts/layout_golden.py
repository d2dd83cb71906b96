"""Writes kvbm/layout/testdata/golden.json: blocks of KV in many layouts, made with numpy's
transposes alone, as the SHA-256 of their bytes:

    python3 scripts/layout_golden.py > kvbm/layout/testdata/golden.json
"""

import hashlib
import json
import re
import sys

import numpy as np

LETTERS = "lkhtd"


def fields(text):
    m = re.fullmatch(r"layers=(\d+) kv=(\d+) heads=(\d+) dim=(\d+) tokens=(\d+) dtype=\w+:(\d+) order=(\S+) rank=(\d+)/(\d+)", text)
    return [int(x) if x.isdigit() else x for x in m.groups()]


def block(text):
    """The bytes of a shard's block: the whole model's KV, cut by heads and transposed."""
    layers, kv, heads, dim, tokens, size, order, rank, ranks = fields(text)
    count = layers * kv * heads * tokens * dim
    element = np.arange(count, dtype=np.uint32)[:, None]
    place = np.arange(size, dtype=np.uint32)[None, :]
    every = ((element * np.uint32(2654435761) + place * np.uint32(40503)) >> np.uint32(13)).astype(np.uint8)
    every = every.reshape(layers, kv, heads, tokens, dim, size)
    if ranks <= heads:
        mine = np.split(every, ranks, axis=2)[rank]
    else:
        mine = np.repeat(every, ranks // heads, axis=2)[:, :, rank:rank + 1]
    both, _, keys = order.partition(":")
    both = both.replace("/", "")
    axes = [LETTERS.index(c) for c in both] + [5]
    out = np.ascontiguousarray(mine.transpose(axes))
    if keys:
        k = both.index("k")
        outer, own = both[:k], both[:k] + keys
        key = np.ascontiguousarray(mine[:, 0].transpose(["lhtd".index(c) for c in own] + [4]))
        value = np.ascontiguousarray(mine[:, 1].transpose(["lhtd".index(c) for c in both if c != "k"] + [4]))
        flat = [x.reshape(x.shape[:len(outer)] + (1, -1)) for x in (key, value)]
        out = np.concatenate(flat, axis=len(outer))
    return out.tobytes()


def digest(b):
    return hashlib.sha256(b).hexdigest()


def main():
    cases = []
    for shape, froms, tos in [
        ("layers=3 kv=2 heads=4 dim=8 tokens=16 dtype=bf16:2",
         ["l/kthd rank=0/1", "l/khtd rank=0/2", "lk/thd rank=0/4", "khltd rank=0/2", "lhktd:dt rank=0/1", "l/kthd rank=0/8"],
         ["l/khtd rank=0/1", "l/kthd rank=1/2", "lhktd:dt rank=0/1", "lk/htd rank=5/8"]),
        ("layers=2 kv=2 heads=6 dim=5 tokens=3 dtype=f32:4",
         ["l/kthd rank=0/3", "tdhlk rank=0/2", "kl/dth:ldht rank=0/1"],
         ["l/khtd rank=1/2", "lkthd rank=2/3", "hkltd:dlt rank=0/1"]),
        ("layers=3 kv=1 heads=1 dim=36 tokens=7 dtype=fp8_e4m3:1",
         ["l/khtd rank=0/4", "lktdh rank=0/1"],
         ["lkdth rank=1/2", "l/kthd rank=0/1"]),
    ]:
        for a in froms:
            for b in tos:
                source, result = f"{shape} order={a}", f"{shape} order={b}"
                ranks = int(a.rsplit("/", 1)[1])
                cases.append({
                    "From": source, "To": result,
                    "Sources": [digest(block(re.sub(r"rank=\d+", f"rank={r}", source))) for r in range(ranks)],
                    "Result": digest(block(result)),
                })
    json.dump(cases, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
