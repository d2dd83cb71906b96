"""Client of the KV daemon of a host ('dynamo kvbm').

The daemon keeps KV blocks in host memory, on disk and in a remote store, and outlives
the engines that put them there. It knows blocks by 16-byte keys; what a key stands for
is the engine's affair: chain_keys makes them of token ids. Bytes move through memory
that both processes map (Client.slots), so nothing is copied through the socket.

    client = Client("/run/user/1000/dynamo/kvbm.sock", content="my model, bf16, layout 1",
                    block_bytes=len(block))
    keys = chain_keys(token_ids, 16, b"my model")
    client.store(keys, blocks)             # arrays, one for each full block of tokens
    found = client.find(keys)              # how many of the leading blocks are there
    blocks = client.fetch(keys[:found])    # an array of (blocks, block_bytes)

Engines whose blocks lie otherwise in memory, or are split over other numbers of ranks,
share blocks if each says how its own lie:

    layout = Layout(layers=32, heads=8, dim=128, tokens=16, dtype="bf16", order="l/kthd", rank=0, ranks=2)
    client = Client(path, content="my model", layout=layout)
    client.store(keys, blocks)             # arrays whose axes are those of layout.shape

A daemon that is away is a miss, not an error: find and get say 0, put says that nothing
was taken, and the next calls try again. The protocol is described in docs/kvbm.md.

Needs Linux, Python 3.9 and numpy. A Client is not safe for use by several threads.
"""

import fcntl
import hashlib
import json
import mmap
import os
import socket
import struct
import time
import zlib

import numpy as np

VERSION = 1
VERSION_WITH_LAYOUT = 2
MAGIC = b"dynKVMd1"
KEY_BYTES = 16

_HELLO, _MEMORY, _FIND, _PUT, _GET, _DROP, _ADMIN = range(1, 8)
_HEADER = struct.Struct("<IBBHQ")
_KINDS = {
    1: "internal", 2: "invalid", 3: "not_found", 4: "exhausted",
    5: "unavailable", 6: "cancelled", 7: "deadline", 8: "corrupt",
}
_REDIAL_MIN, _REDIAL_MAX = 0.05, 2.0


class Refused(Exception):
    """The daemon refuses a request: it is wrong, or a limit is reached."""

    def __init__(self, status, text):
        super().__init__(text)
        self.kind = _KINDS.get(status, "internal")


class _Away(Exception):
    """The daemon cannot be reached at the moment."""


def chain_keys(ids, block_tokens, seed=b""):
    """Keys of the full blocks of a sequence: each depends on its ids, on all before it
    and on seed, which says what else the bytes depend on (model, adapter, tenant)."""
    ids = np.ascontiguousarray(ids, dtype="<u4")
    keys, parent = [], hashlib.blake2b(seed, digest_size=KEY_BYTES).digest()
    for at in range(0, len(ids) - block_tokens + 1, block_tokens):
        parent = hashlib.blake2b(parent + ids[at:at + block_tokens].tobytes(), digest_size=KEY_BYTES).digest()
        keys.append(parent)
    return keys


class Layout:
    """How the KV of a block lies in the memory of one rank.

    order has a letter for each dimension, the outermost first: l layers, k keys and values,
    h heads, t tokens, d the elements of a head. What stands before a "/" is in regions of
    its own, as where a cache has a tensor for each layer; in the bytes of a block the regions
    follow one another. Letters behind a ":" say how keys lie if otherwise than values, from
    the letter behind k on. vLLM has l/kthd (NHD) or l/khtd (HND) with FlashInfer.

    heads are those of the whole model: each of the ranks has an equal share, or one of
    several ranks have alike. kv=1 is for one latent in place of keys and values."""

    def __init__(self, layers, heads, dim, tokens, dtype, order, rank=0, ranks=1, kv=2, element_bytes=None):
        if element_bytes is None:
            element_bytes = {"f32": 4, "f16": 2, "bf16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}[dtype]
        self.tokens, self.element_bytes, self.order = tokens, element_bytes, order
        self.rank_heads = max(heads // ranks, 1)
        self.first_head = rank * heads // ranks
        self.text = (f"layers={layers} kv={kv} heads={heads} dim={dim} tokens={tokens} "
                     f"dtype={dtype}:{element_bytes} order={order} rank={rank}/{ranks}")
        sizes = {"l": layers, "k": kv, "h": self.rank_heads, "t": tokens, "d": dim}
        self.shape = tuple(sizes[c] for c in order.partition(":")[0] if c != "/")
        self.block_bytes = int(np.prod(self.shape)) * element_bytes

    def __str__(self):
        return self.text


def _sums(block):
    """CRC-32 of the bytes, and their sum as 64-bit words, as a fingerprint has them."""
    whole = len(block) // 8 * 8
    words = int(block[:whole].view("<u8").sum(dtype=np.uint64))
    rest = int.from_bytes(block[whole:].tobytes(), "little")
    return struct.pack("<IQ", zlib.crc32(block), (words + rest) % 2**64)


class Client:
    """A connection to the daemon, with memory for a number of blocks (slots)."""

    def __init__(self, path, content, block_bytes=None, block_tokens=16, slots=64, name=None, timeout=10.0, layout=None):
        """content says what the bytes of blocks depend on besides their keys: clients with
        equal contents and sizes share blocks. name is the client's, in all its lives: its
        quota goes by it.

        layout says how the blocks lie: then content names the model alone, and blocks of
        clients with other layouts of it are brought in this one. What is brought has a
        fingerprint, and what has another is a miss (and counted in self.corrupt)."""
        if layout is not None:
            block_bytes, block_tokens = layout.block_bytes, layout.tokens
        elif block_bytes is None:
            raise ValueError("give block_bytes or a layout")
        self.layout, self.corrupt = layout, 0
        self.path, self.content, self.name = path, content, name or os.path.basename(os.sys.argv[0]) or "python"
        self.block_bytes, self.block_tokens, self.slot_count = block_bytes, block_tokens, slots
        self.timeout = timeout
        self.quota = self.life = 0
        self._socket = self._memory = self._slots = None
        self._next_id, self._again, self._wait = 0, 0.0, 0.0

    @property
    def slots(self):
        """The shared memory as an array of (slots, block_bytes) bytes. It is another one
        after the daemon has been away; do not keep it."""
        if self._slots is None:
            self._make_memory()
        return self._slots

    # What an engine does.

    def find(self, keys):
        """How many of the leading keys are there."""
        found = 0
        for at in range(0, len(keys), 4096):
            piece = keys[at:at + 4096]
            reply = self._miss(_FIND, lambda: struct.pack("<I", len(piece)) + b"".join(piece))
            n = struct.unpack("<I", reply)[0] if reply else 0
            found += n
            if n < len(piece):
                break
        return found

    def put(self, items):
        """Gives blocks from slots: items are (key, parent, depth, slot), with parent the key
        of the block before it or None. Returns for each whether it is kept. The slots may
        be used again."""
        def body():
            out = [struct.pack("<I", len(items))]
            for key, parent, depth, slot in items:
                out.append(key + (parent or bytes(KEY_BYTES)) + struct.pack("<IIQ", depth, 0, self._offset(slot)))
            return b"".join(out)
        reply = self._miss(_PUT, body)
        return [b == 1 for b in reply] if reply else [False] * len(items)

    def get(self, items):
        """Brings blocks into slots: items are (key, slot). Returns how many of the leading
        ones are there; the slots of the others hold anything."""
        def body():
            out = [struct.pack("<I", len(items))]
            for key, slot in items:
                out.append(key + struct.pack("<IIQ", 0, 0, self._offset(slot)))
            return b"".join(out)
        reply = self._miss(_GET, body)
        n = struct.unpack_from("<I", reply)[0] if reply else 0
        if n and self.layout is not None:
            n = self._checked(items[:n], reply[4:])
        return n

    def _checked(self, items, prints):
        """How many of the leading blocks have their fingerprints."""
        head = self.content.encode() + b"\0" + str(self.layout).encode() + b"\0"
        for i, (key, slot) in enumerate(items):
            want = hashlib.sha256(head + key + _sums(self.slots[slot])).digest()[:16]
            if prints[16 * i:16 * (i + 1)] != want:
                self.corrupt += 1
                return i
        return len(items)

    def store(self, keys, blocks, first=0):
        """Puts a sequence's blocks, of which keys are the names and blocks the bytes
        (arrays of block_bytes bytes), from number first of the keys on. Returns how many
        are kept."""
        kept = 0
        for at in range(first, len(keys), self.slot_count):
            items = []
            for slot, i in enumerate(range(at, min(at + self.slot_count, len(keys)))):
                self.slots[slot] = np.ascontiguousarray(blocks[i - first]).reshape(-1).view(np.uint8)
                items.append((keys[i], keys[i - 1] if i else None, i, slot))
            kept += sum(self.put(items))
        return kept

    def fetch(self, keys):
        """The leading blocks that are there, as an array of (blocks, block_bytes)."""
        out = np.empty((len(keys), self.block_bytes), np.uint8)
        n = 0
        while n < len(keys):
            piece = keys[n:n + self.slot_count]
            got = self.get([(key, slot) for slot, key in enumerate(piece)])
            out[n:n + got] = self.slots[:got]
            n += got
            if got < len(piece):
                break
        return out[:n]

    def drop(self, keys):
        """Forgets blocks; returns the number of copies there were."""
        reply = self._miss(_DROP, lambda: struct.pack("<I", len(keys)) + b"".join(keys))
        return struct.unpack("<I", reply)[0] if reply else 0

    def stat(self):
        """What the daemon says of its tiers and clients; None while it is away."""
        reply = self._miss(_ADMIN, lambda: b'{"op":"stat"}')
        return json.loads(reply) if reply else None

    def close(self):
        """Ends the connection. What was put stays."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._slots = None
        if self._memory is not None:
            os.close(self._memory)  # the mapping ends with the last array that uses it
        self._memory = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # The connection.

    def _offset(self, slot):
        if not 0 <= slot < self.slot_count:
            raise IndexError(f"slot {slot} of {self.slot_count}")
        return slot * self.block_bytes

    def _miss(self, op, body):
        """The reply, or None while the daemon is away."""
        try:
            return self._call(op, body)
        except _Away:
            return None

    def _call(self, op, body):
        for attempt in range(2):
            fresh = self._socket is None
            if fresh:
                self._connect()
            try:
                return self._ask(op, body())
            except OSError as e:
                # Its memory is given up with a connection: the daemon may still write to it.
                written = self._slots
                self.close()
                if fresh or attempt or isinstance(e, socket.timeout):
                    raise _Away from e
                if op == _PUT:
                    self.slots[:] = written
        raise _Away

    def _connect(self):
        if time.monotonic() < self._again:
            raise _Away
        try:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.settimeout(self.timeout)
            s.connect(self.path)
            self._socket = s
            version = VERSION if self.layout is None else VERSION_WITH_LAYOUT
            hello = MAGIC + struct.pack("<HHII", version, version, self.block_bytes, self.block_tokens)
            for text in (self.name.encode()[:128], self.content.encode()):
                hello += struct.pack("<H", len(text)) + text
            if self.layout is not None:
                text = str(self.layout).encode()
                hello += struct.pack("<H", len(text)) + text + struct.pack("<H", 1)  # with fingerprints
            reply = self._ask(_HELLO, hello)
            _, _, _, self.quota, _, self.life = struct.unpack("<HHIQQQ", reply[:32])
            if self._memory is None:
                self._make_memory()
            self._ask(_MEMORY, struct.pack("<Q", self.slot_count * self.block_bytes), self._memory)
        except OSError as e:
            self._wait = min(max(2 * self._wait, _REDIAL_MIN), _REDIAL_MAX)
            self._again = time.monotonic() + self._wait
            if self._socket is None:
                s.close()
            else:
                self._socket.close()
                self._socket = None
            raise _Away from e
        except Refused:
            self.close()
            raise
        self._wait = 0.0

    def _make_memory(self):
        size = self.slot_count * self.block_bytes
        fd = os.memfd_create("dynamo-kvbm-client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        # F_ADD_SEALS with F_SEAL_SHRINK and F_SEAL_GROW; not all versions name them.
        fcntl.fcntl(fd, getattr(fcntl, "F_ADD_SEALS", 1033), 0x2 | 0x4)
        self._memory = fd
        self._slots = np.frombuffer(mmap.mmap(fd, size), np.uint8).reshape(self.slot_count, self.block_bytes)

    def _ask(self, op, body, file=None):
        self._next_id += 1
        message = _HEADER.pack(len(body), op, 0, 0, self._next_id) + body
        if file is None:
            self._socket.sendall(message)
        else:
            socket.send_fds(self._socket, [message], [file])
        length, _, status, _, request = _HEADER.unpack(self._read(_HEADER.size))
        reply = self._read(length)
        if request != self._next_id:
            raise ConnectionError("an answer to another request")
        if status:
            raise Refused(status, reply.decode(errors="replace"))
        return reply

    def _read(self, n):
        out = bytearray()
        while len(out) < n:
            piece = self._socket.recv(n - len(out))
            if not piece:
                raise ConnectionError("the daemon has closed the connection")
            out += piece
        return bytes(out)
