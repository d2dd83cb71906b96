"""NIXL as one of the systems that scripts/transfer measures: reads commands from its
standard input, one JSON object a line, and answers each with one.

  {"do": "list", "name": N, "block": B, "count": C}   prepares scattered blocks
  {"do": "post", "name": N, "op": "write"|"read"}     -> {"ns": until it was done}
  {"do": "file", "path": P, "bytes": B, "block": S}   prepares a file of whole blocks
  {"do": "kill"}                                      -> {"ns": from the peer's death to the error}
"""

import json
import mmap
import os
import signal
import subprocess
import sys
import time

import numpy as np
from nixl._api import nixl_agent, nixl_agent_config

REGION = int(os.environ.get("REGION", 512 << 20))


class Side:
    """An agent with one region of host memory."""

    def __init__(self, name):
        self.agent = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
        self.bytes = np.frombuffer(mmap.mmap(-1, REGION), dtype=np.uint8)
        self.bytes[::4096] = 1
        self.base = self.bytes.ctypes.data
        self.agent.register_memory([(self.base, REGION, 0, "kv")], "DRAM")


def target(out):
    side = Side("target")
    print(json.dumps({"blob": side.agent.get_agent_metadata().hex(), "base": side.base}), file=out, flush=True)
    sys.stdin.read()


class Initiator:
    def __init__(self):
        self.side = Side("initiator")
        self.agent = self.side.agent
        self.child = subprocess.Popen([sys.executable, __file__, "target"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        told = json.loads(self.child.stdout.readline())
        self.peer = self.agent.add_remote_agent(bytes.fromhex(told["blob"]))
        self.base, self.lists = told["base"], {}

    def prepare(self, c):
        b, n = c["block"], c["count"]
        i = np.arange(n)
        zero, size = np.zeros(n, dtype=np.int64), np.full(n, b)
        mine = np.stack([self.side.base + 2 * i * b, size, zero], axis=1).astype(np.int64)
        theirs = np.stack([self.base + (2 * (i * 7 % n) + 1) * b, size, zero], axis=1).astype(np.int64)
        local = self.agent.prep_xfer_dlist("NIXL_INIT_AGENT", mine, "DRAM")
        remote = self.agent.prep_xfer_dlist(self.peer, theirs, "DRAM")
        for op in "write", "read":
            self.lists[c["name"], op] = self.agent.make_prepped_xfer(op.upper(), local, i, remote, i)

    def file(self, c):
        """A file, opened past the page cache where that is possible."""
        self.agent.create_backend("POSIX", {})
        try:
            fd = os.open(c["path"], os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        except OSError:
            fd = os.open(c["path"], os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(fd, 0, c["bytes"])
        self.agent.register_memory([(0, c["bytes"], fd, "f")], "FILE", ["POSIX"])
        # a region of its own: UCX has the other
        self.room = np.frombuffer(mmap.mmap(-1, c["bytes"]), dtype=np.uint8)
        self.room[::4096] = 1
        base = self.room.ctypes.data
        self.agent.register_memory([(base, c["bytes"], 0, "room")], "DRAM", ["POSIX"])
        n = c["bytes"] // c["block"]
        at = [i * c["block"] for i in range(n)]
        local = self.agent.get_xfer_descs([(base + o, c["block"], 0) for o in at], "DRAM")
        remote = self.agent.get_xfer_descs([(o, c["block"], fd) for o in at], "FILE")
        for op in "write", "read":
            self.lists["file", op] = self.agent.initialize_xfer(op.upper(), local, remote, "initiator", b"", ["POSIX"])

    def post(self, x):
        begun = time.perf_counter_ns()
        state = self.agent.transfer(x)
        while state == "PROC":
            state = self.agent.check_xfer_state(x)
        if state != "DONE":
            raise RuntimeError(state)
        return time.perf_counter_ns() - begun

    def kill(self):
        x = self.lists["small", "write"]
        self.child.send_signal(signal.SIGKILL)
        begun = time.perf_counter_ns()
        try:
            while time.perf_counter_ns() - begun < 10**10:
                self.post(x)
        except Exception:  # the error is what is waited for
            pass
        return time.perf_counter_ns() - begun

    def answer(self, c):
        match c["do"]:
            case "list":
                self.prepare(c)
            case "file":
                self.file(c)
            case "post":
                return {"ns": self.post(self.lists[c["name"], c["op"]])}
            case "kill":
                return {"ns": self.kill()}
        return {}


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    if sys.argv[1:] == ["target"]:
        return target(out)
    system = Initiator()
    print(json.dumps({"pids": [os.getpid(), system.child.pid]}), file=out, flush=True)
    for line in sys.stdin:
        try:
            a = system.answer(json.loads(line))
        except Exception as e:  # of the library, whatever it is
            a = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(a), file=out, flush=True)
    system.child.kill()


main()
