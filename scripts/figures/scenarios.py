"""scenarios.py DIR: the table of the part "scenarios" of run.sh.

DIR has SIDE-SCENARIO-ROUND.json as `dynamo bench --json` prints them, and `memory`
with lines SIDE WHEN KIB. A cell is the median of the rounds and their range; the
last columns are ours over the reference's, and what it is to be at most."""

import glob
import json
import os
import statistics
import sys

where = sys.argv[1]
runs, memory = {}, {}
for path in sorted(glob.glob(os.path.join(where, "*.json"))):
    side, scenario, _ = os.path.basename(path)[:-5].split("-")
    with open(path) as f:
        runs.setdefault((side, scenario), []).append(json.load(f))
with open(os.path.join(where, "memory")) as f:
    for side, when, kib in map(str.split, f):
        memory.setdefault((side, when), []).append(int(kib) / 1024)


def cpu(r):
    return next(p["cpu_seconds"] for p in r["processes"] if p["name"] == "frontend")


def per_request(r):
    return cpu(r) / r["requests"] * 1000


def per_token(r):
    return cpu(r) / (r["requests"] * r["output_tokens"]["mean"]) * 1e6


def per_chunk(r):
    return cpu(r) / r["chunks"] * 1e6


def first(r):
    return r["ttft_seconds"]["p50"] * 1000


def cell(values, form):
    if not values:
        return "-"
    return f"{statistics.median(values):{form}} [{min(values):{form}}-{max(values):{form}}]"


def row(what, ours, theirs, form, target):
    ratio = statistics.median(ours) / statistics.median(theirs) if ours and theirs and statistics.median(theirs) else None
    print(f"{what:66} {cell(ours, form):>23} {cell(theirs, form):>23} {f'{ratio:.3f}' if ratio is not None else '-':>7}  {target}")


def of(side, scenario, f):
    return [f(r) for r in runs.get((side, scenario), [])]


print(f"{'measure: median [range]':66} {'dynamo':>23} {'Dynamo 1.6.1':>23} {'ratio':>7}  to reach")
for scenario, what, f, target in (
    ("a", "a: 69-token prompt, 16 tokens streamed: CPU-s per 1k requests", per_request, "1/3"),
    ("b", "b: 1,036-token prompt, 256 tokens: CPU-s per 1M chunks", per_chunk, "1/3"),
    ("b", "b: the same: CPU-s per 1M tokens", per_token, "1/3"),
    ("c", "c: 7,536-token prompt, 16 tokens: CPU-s per 1k requests", per_request, "1/5"),
    ("d", "d: a, unary: CPU-s per 1k requests", per_request, "1/3"),
    ("e", "e: a, paced at about 6 ms a token: CPU-s per 1k requests", per_request, "1/3"),
):
    row(what, of("ours", scenario, f), of("theirs", scenario, f), ".3f" if f is per_request else ".1f", target)
for scenario in "ae":
    row(scenario + ": ours with no log lines, the reference with its one", of("ours", scenario + "quiet", per_request), of("theirs", scenario, per_request), ".3f", "")
row("one at a time, ordinary client: first token p50, ms", of("ours", "one", first), of("theirs", "one", first), ".2f", "0.5 ms")
row("one at a time, client acknowledges at once: first token p50, ms", of("ours", "ack", first), of("theirs", "ack", first), ".2f", "")
for when, target in (("idle", "40 MiB"), ("loaded", "120 MiB")):
    row(f"resident memory, {when}, MiB", memory.get(("ours", when), []), memory.get(("theirs", when), []), ".0f", target)

failed = {k: sum(sum(r["errors"].values()) for r in v) for k, v in runs.items()}
for (side, scenario), n in failed.items():
    if n:
        print(f"{side}, {scenario}: {n} requests failed; its figures say nothing")

print("\nbehind it, medians: requests/s; cores of the frontend; events per answer; gap between events p50, ms")
for scenario in "abcde":
    line = f"  {scenario}:"
    for side, name in (("ours", "dynamo"), ("theirs", "Dynamo 1.6.1")):
        every = runs.get((side, scenario), [])
        if not every:
            continue
        rate, cores, events, gap = (statistics.median(f(r) for r in every) for f in (
            lambda r: r["requests_per_second"], lambda r: cpu(r) / r["duration_seconds"], lambda r: r["chunks"] / r["requests"], lambda r: r["icl_seconds"]["p50"] * 1000))
        line += f" {name} {rate:.0f}; {cores:.2f}; {events:.1f}; {gap:.2f}   "
    print(line)
sys.exit(1 if any(failed.values()) or not memory else 0)
