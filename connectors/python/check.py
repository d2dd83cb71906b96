"""Checks the client against a daemon: python3 check.py SOCKET, with lines on stdin when
the daemon has been stopped ("stopped") and started again ("started")."""

import sys
import time

import numpy as np

from dynamo_kvbm import Client, Layout, Refused, chain_keys

path = sys.argv[1]
client = Client(path, content="check", block_bytes=3000, slots=8, name="check")
ids = np.arange(5, 5 + 16 * 30 + 7)
keys = chain_keys(ids, 16, b"check")
assert len(keys) == 30 and len(set(keys)) == 30
assert chain_keys(ids[:64], 16, b"check") == keys[:4]
assert chain_keys(ids[:64], 16, b"another")[0] != keys[0]
blocks = [np.full(3000, i, np.uint8) for i in range(30)]

assert client.find(keys) == 0 and len(client.fetch(keys)) == 0
assert client.store(keys[:20], blocks[:20]) == 20
assert client.find(keys) == 20
assert client.store(keys, blocks[20:], first=20) == 10
got = client.fetch(keys)
assert got.shape == (30, 3000) and all((got[i] == i).all() for i in range(30))
assert client.get([(keys[3], 7), (keys[2], 0)]) == 2
assert (client.slots[7] == 3).all() and (client.slots[0] == 2).all()
assert client.drop([keys[10]]) >= 1
assert client.find(keys) == 10
for wrong in (lambda: client.put([(keys[0], None, 0, 8)]), lambda: client.get([(keys[0], -1)])):
    try:
        wrong()
        raise SystemExit("a slot that is not there is used")
    except IndexError:
        pass
try:
    Client(path, content="x" * 2000, block_bytes=10).find(keys)
    raise SystemExit("a long content is taken")
except Refused as e:
    assert e.kind == "invalid", e.kind
clients = [c["name"] for part in client.stat()["contents"] for c in part["clients"]]
assert "check" in clients, clients

# A block with a layout has a fingerprint; one that is damaged on the way is a miss.
laid = Client(path, content="check laid", slots=4, name="laid", layout=Layout(layers=2, kv=1, heads=2, dim=3, tokens=5, dtype="u8", element_bytes=1, order="lkhtd"))
assert laid.block_bytes == 60 and laid.layout.shape == (2, 1, 2, 5, 3)
assert laid.store(keys[:3], [np.arange(60, dtype=np.uint8).reshape(laid.layout.shape) + i for i in range(3)]) == 3
assert laid.get([(keys[0], 0), (keys[1], 1), (keys[2], 2)]) == 3 and laid.corrupt == 0


def damaged(op, body, ask=laid._ask):
    reply = ask(op, body)
    laid.slots[1, 57] ^= 1
    return reply


laid._ask = damaged
assert laid.get([(keys[0], 0), (keys[1], 1), (keys[2], 2)]) == 1 and laid.corrupt == 1
laid.close()
print("checked", flush=True)

assert sys.stdin.readline() == "stopped\n"
assert client.find(keys) == 0
assert client.store(keys[:2], blocks) == 0
assert len(client.fetch(keys)) == 0 and client.stat() is None
print("missed", flush=True)

assert sys.stdin.readline() == "started\n"
end = time.monotonic() + 10
while client.store(keys[:20], blocks[:20]) < 20:
    assert time.monotonic() < end, "the daemon is not found again"
    time.sleep(0.02)
got = client.fetch(keys)
assert len(got) >= 10 and all((got[i] == i).all() for i in range(len(got)))
client.close()
print("found again", flush=True)
