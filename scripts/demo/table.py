"""table.py COMMAND PATH: the figures of scripts/demo/run.sh.

rate, cold DIR  of a run of prompts that nobody holds: the rate to play the trace at,
                and how long such a prompt takes
before A B      of trace A, which goes before B: the last turn of each chat that B
                goes on with, and one under each other system prompt
table OUT       the table of all runs; fails beyond MIN_HIT (%) and MAX_RATIO, if set
check OUT       fails unless every request was answered in full, kv found more in the
                caches than round-robin, and both said the same to the same question
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
        warm = path / "kv" / "warm.jsonl"
        both["warm"] = records(warm) if warm.exists() else []
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


def check(out):
    """What holds however slow the machine is; says what does not."""
    for workers, all_rounds in rounds(out).items():
        for one in all_rounds:
            answers = []
            for mode in ("round-robin", "kv"):
                sent = sum(1 for _ in open(one["path"] / mode / "records.jsonl"))
                if not sent or len(one[mode]) != sent or any(r["output_tokens"] < 1 for r in one[mode]):
                    return f"{workers} workers, {mode}: {len(one[mode])} of {sent} requests were answered, and not all in full"
                answers.append(json.load(open(one["path"] / mode / "answer.json"))["choices"][0]["message"]["content"])
            if not answers[0].strip() or answers[0] != answers[1]:
                return f"{workers} workers: round-robin's answer is {answers[0]!r}, kv's {answers[1]!r}"
            rates = {mode: hit(one[mode]) for mode in ("round-robin", "kv")}
            if not rates["kv"] > rates["round-robin"]:
                return f"{workers} workers: kv finds {rates['kv']:.1f} % of the prompts' tokens, round-robin {rates['round-robin']:.1f} %"
            print(f"{workers} workers: {len(one['kv'])} requests each, all answered; the same text: {answers[0]!r}")
    return None


def main():
    command, path = sys.argv[1:3]
    if command == "before":
        before(path, sys.argv[3])
        return
    if command == "table":
        sys.exit(not table(path))
    if command == "check":
        sys.exit(check(path))
    took = statistics.median((r["end_ns"] - r["scheduled_ns"]) / 1e9 for r in records(pathlib.Path(path) / "records.jsonl"))
    if command == "cold":
        print(f"{took:.2f} s each, two at a time")
    else:
        print(f"{2 / took:.2f}")


if __name__ == "__main__":
    main()
