"""Two ranks of a pretended engine put their halves of KV in the daemon, one head after
another (HND); an engine of one rank gets it token by token (NHD):

    dynamo kvbm --kvbm-cpu-cache-gb 1 --models 2 &
    python3 layouts.py /run/user/1000/dynamo/kvbm.sock
"""

import sys

import numpy as np

from dynamo_kvbm import Client, Layout, Refused, chain_keys

MODEL = "layouts example 1"
SHAPE = dict(layers=4, heads=6, dim=32, tokens=16, dtype="f16")
BLOCKS = 10


def compute(block):
    """What the model computes for a block: (layers, keys and values, heads, tokens, dim)."""
    return np.random.default_rng(block).standard_normal((4, 2, 6, 16, 32)).astype(np.float16)


def main(path):
    keys = chain_keys(np.arange(1, 16 * BLOCKS + 1), 16, MODEL.encode())
    ranks = [Client(path, MODEL, name="writer", layout=Layout(**SHAPE, order="l/khtd", rank=r, ranks=2)) for r in range(2)]
    reader = Client(path, MODEL, name="reader", layout=Layout(**SHAPE, order="l/kthd"))
    for client in ranks:
        first, n = client.layout.first_head, client.layout.rank_heads
        kept = client.store(keys, [compute(i)[:, :, first:first + n] for i in range(BLOCKS)])
        print(f"{kept} blocks of heads {first} to {first + n - 1} are kept; the reader finds {reader.find(keys)}")
    got = reader.fetch(keys)
    for i, block in enumerate(got):
        want = compute(i).transpose(0, 1, 3, 2, 4)  # tokens before heads
        if not np.array_equal(block.view(np.float16).reshape(reader.layout.shape), want):
            sys.exit(f"block {i} is another")
    print(f"{len(got)} blocks came, tokens before heads; {reader.corrupt} were damaged on the way")
    try:
        Client(path, MODEL, layout=Layout(**{**SHAPE, "layers": 5}, order="l/kthd")).find(keys)
        sys.exit("another model is taken for this one")
    except Refused as e:
        print(f"{e.kind}: {str(e).partition('differ in ')[2].partition(';')[0]}")
    for client in ranks + [reader]:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1])
