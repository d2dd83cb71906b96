"""Keeps the KV of a pretended engine in the daemon:

    dynamo kvbm --kvbm-cpu-cache-gb 1 &
    python3 example.py /run/user/1000/dynamo/kvbm.sock

Run it twice: the second run computes nothing, also after the daemon was started again
if that has a disk tier (--kvbm-disk-cache-gb 1 --kvbm-disk-policy always).
"""

import sys

import numpy as np

from dynamo_kvbm import Client, chain_keys

BLOCK_TOKENS, LAYERS, HEADS, HEAD_DIM = 16, 4, 2, 64


def compute(ids):
    """What an engine would compute for the tokens of a block: keys and values."""
    rng = np.random.default_rng(int(np.sum(ids)))
    return rng.standard_normal((2, LAYERS, BLOCK_TOKENS, HEADS, HEAD_DIM)).astype(np.float16)


def main(path):
    prompt = np.arange(1, 161)
    bytes_of_block = compute(prompt[:BLOCK_TOKENS]).nbytes
    with Client(path, content="example 1: 4 layers, f16", block_bytes=bytes_of_block, block_tokens=BLOCK_TOKENS, name="example") as client:
        keys = chain_keys(prompt, BLOCK_TOKENS, b"example 1")
        found = client.fetch(keys)
        print(f"{len(found)} of {len(keys)} blocks came from the daemon")
        rest = [compute(prompt[i * BLOCK_TOKENS:(i + 1) * BLOCK_TOKENS]) for i in range(len(found), len(keys))]
        kept = client.store(keys, rest, first=len(found))
        print(f"{len(rest)} blocks were computed, {kept} are kept")
        for i, block in enumerate(found):
            want = compute(prompt[i * BLOCK_TOKENS:(i + 1) * BLOCK_TOKENS])
            if not np.array_equal(block.view(np.float16).reshape(want.shape), want):
                sys.exit(f"block {i} is another")


if __name__ == "__main__":
    main(sys.argv[1])
