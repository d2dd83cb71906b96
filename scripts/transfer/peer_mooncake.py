"""Mooncake's transfer engine (over tcp, without a metadata server) as one of the systems
that scripts/transfer measures. It takes the commands that peer_nixl.py does, but for
files, which it does not move."""

import json
import mmap
import os
import signal
import subprocess
import sys
import time

import numpy as np
from mooncake.engine import TransferEngine

REGION = int(os.environ.get("REGION", 512 << 20))


class Side:
    """An engine with one region of host memory."""

    def __init__(self):
        self.engine = TransferEngine()
        if self.engine.initialize("127.0.0.1:0", "P2PHANDSHAKE", "tcp", "") != 0:
            raise RuntimeError("the engine does not start")
        self.name = f"127.0.0.1:{self.engine.get_rpc_port()}"
        self.bytes = np.frombuffer(mmap.mmap(-1, REGION), dtype=np.uint8)
        self.bytes[::4096] = 1
        self.base = self.bytes.ctypes.data
        if self.engine.register_memory(self.base, REGION) != 0:
            raise RuntimeError("the engine takes no memory")


def target(out):
    side = Side()
    print(json.dumps({"name": side.name, "base": side.base}), file=out, flush=True)
    sys.stdin.read()


class Initiator:
    def __init__(self):
        self.side, self.lists = Side(), {}
        self.child = subprocess.Popen([sys.executable, __file__, "target"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        told = json.loads(self.child.stdout.readline())
        self.peer, self.base = told["name"], told["base"]

    def prepare(self, c):
        b, n = c["block"], c["count"]
        mine = [self.side.base + 2 * i * b for i in range(n)]
        theirs = [self.base + (2 * (i * 7 % n) + 1) * b for i in range(n)]
        self.lists[c["name"]] = mine, theirs, [b] * n

    def post(self, name, op):
        engine = self.side.engine
        call = engine.batch_transfer_sync_write if op == "write" else engine.batch_transfer_sync_read
        begun = time.perf_counter_ns()
        if call(self.peer, *self.lists[name]) != 0:
            raise RuntimeError("the engine failed")
        return time.perf_counter_ns() - begun

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        begun = time.perf_counter_ns()
        try:
            while time.perf_counter_ns() - begun < 10**10:
                self.post("small", "write")
        except RuntimeError:  # the error is what is waited for
            pass
        return time.perf_counter_ns() - begun

    def answer(self, c):
        match c["do"]:
            case "list":
                self.prepare(c)
            case "post":
                return {"ns": self.post(c["name"], c["op"])}
            case "kill":
                return {"ns": self.kill()}
            case other:
                return {"error": f"it does not do {other}"}
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
