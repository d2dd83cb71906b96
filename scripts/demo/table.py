"""table.py COMMAND PATH: the figures of scripts/demo/run.sh.

rate, cold DIR  of a run of prompts that nobody holds: the rate to play the trace at,
                and how long such a prompt takes
before A B      of trace A, which goes before B: the last turn of each chat that B
                goes on with, and one under each other system prompt
table OUT       the table of all runs; fails beyond MIN_HIT (%) and MAX_RATIO, if set
middle OUT      the round whose ratio is the middle one
"""
import json
import math
import os
import pathlib
import statistics
import sys


def records(path):
    with open(path) as lines:
        return [r for r in map(json.loads, lines) if "error" not in r]


def ttft(r):
    return (r["first_ns"] - r["scheduled_ns"]) / 1e6


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(q * len(values)) - 1)]


def hit(all_records):
    return 100 * sum(r.get("cached_tokens", 0) for r in all_records) / sum(r["input_tokens"] for r in all_records)


def rounds(out):
    """The rounds of each number of workers: mode → records, and the directory."""
    found = {}
    for path in sorted(pathlib.Path(out).glob("*-workers/round-*")):
        both = {mode: records(path / mode / "records.jsonl") for mode in ("round-robin", "kv")}
        both["warm"] = records(path / "kv" / "warm.jsonl")
        both["path"] = path
        found.setdefault(int(path.parent.name.split("-")[0]), []).append(both)
    return found


def ratio(r):
    return quantile(map(ttft, r["kv"]), 0.5) / quantile(map(ttft, r["round-robin"]), 0.5)


def table(out):
    print(f"{'workers':>7} {'router':12} {'requests':>8} {'failed':>6} {'hit rate':>9} {'TTFT p50':>9} {'p90':>9}   {'p50 of each round, ms':24}")
    good = True
    for workers, all_rounds in sorted(rounds(out).items()):
        summary = {}
        for mode in ("round-robin", "kv"):
            everything = [r for one in all_rounds for r in one[mode]]
            sent = sum(sum(1 for _ in open(one["path"] / mode / "records.jsonl")) for one in all_rounds)
            p50, p90 = (quantile(map(ttft, everything), q) for q in (0.5, 0.9))
            summary[mode] = hit(everything), p50, p90
            each = ", ".join(f"{quantile(map(ttft, one[mode]), 0.5):.0f}" for one in all_rounds)
            print(f"{workers:7} {mode:12} {len(everything):8} {sent - len(everything):6} {summary[mode][0]:7.1f} % {p50:6.0f} ms {p90:6.0f} ms   {each}")
        cold = hit([r for one in all_rounds for r in one["warm"] + one["kv"]])
        over = [summary["kv"][i] / summary["round-robin"][i] for i in (1, 2)]
        each = ", ".join(f"{ratio(one):.3f}" for one in all_rounds)
        print(f"{workers:7} kv / round-robin: TTFT p50 {over[0]:.3f} (each round {each}), p90 {over[1]:.3f}; kv's hit rate from the first request on {cold:.1f} %")
        good = good and summary["kv"][0] >= float(os.environ.get("MIN_HIT", 0)) and over[0] <= float(os.environ.get("MAX_RATIO", "inf"))
    return good


def before(earlier, measured):
    """Requests that bring the workers to where the measured part begins."""
    trace = [json.loads(line) for line in open(earlier)]
    last, root = {}, {}
    for r in trace:
        last[r["session_id"]] = r
        root[r["hash_ids"][0]] = r
    first = {}
    for line in open(measured):
        r = json.loads(line)
        first.setdefault(r["session_id"], r)
    chosen = [last[name] for name in first if name in last]
    held = {r["hash_ids"][0] for r in chosen}
    chosen = [r for h, r in root.items() if h not in held] + chosen
    for r in chosen:
        r["timestamp"] = 0
        r.pop("delay", None)
        print(json.dumps(r))


def main():
    command, path = sys.argv[1:3]
    if command == "before":
        before(path, sys.argv[3])
        return
    if command == "table":
        sys.exit(not table(path))
    if command == "middle":
        found = rounds(path)
        few = found[min(found)]
        print(sorted(few, key=ratio)[(len(few) - 1) // 2]["path"])
        return
    took = statistics.median((r["end_ns"] - r["scheduled_ns"]) / 1e9 for r in records(pathlib.Path(path) / "records.jsonl"))
    if command == "cold":
        print(f"{took:.2f} s each, two at a time")
    else:
        print(f"{2 / took:.2f}")


main()
