"""Sums up the lines of the part "proxy" of run.sh, which it reads from standard
input and passes on: for each proxy the CPU seconds of all its processes per 1k
requests, median and range over the rounds, and the ratio to vllm-router's."""

import re
import statistics
import sys

used = {}
for line in sys.stdin:
    print(line, end="", flush=True)
    name, colon, rest = line.partition(": ")
    cost = re.findall(r"([\d.]+) CPU-s per 1k requests", rest)
    if colon and cost:
        who, _, load = name.rpartition("; ")
        used.setdefault(load, {}).setdefault(who, []).append(sum(map(float, cost)))
for load, by in used.items():
    peer = next((statistics.median(v) for who, v in by.items() if who.startswith("vllm-router")), None)
    for who, v in by.items():
        ratio = f", {statistics.median(v) / peer:.2f} of vllm-router's" if peer else ""
        print(f"-> {load}: {who}: {statistics.median(v):.3f} CPU-s per 1k requests ({min(v):.3f}-{max(v):.3f}){ratio}")
