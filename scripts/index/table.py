"""Runs the index benchmark's programs in turn and prints one table.

Every figure is the best of all rounds, and the ratio is to the better of the peer's
implementations. Exits with 1 when checksums or digests differ: then the programs have
not done the same work, and their figures say nothing.
"""

import argparse
import json
import shlex
import subprocess
import sys

PEERS = ["radix", "crtc:1"]

# name, mode and arguments of a run, key of the figure, higher is better
ROWS = [
    ("store, 64 blocks an event, M/s", ("bench", 64, 64, 1), "store_blk_s", 1e6),
    ("store, 1 block an event, M/s", ("bench", 64, 1, 1), "store_blk_s", 1e6),
    ("find 128 blocks, k/s", ("bench", 64, 64, 1), "q128_s", 1e3),
    ("  p99, us", ("bench", 64, 64, 1), "q128_p99_us", None),
    ("  chaining included, k/s", ("bench", 64, 64, 1), "q128_chained_s", 1e3),
    ("find 512 blocks, k/s", ("bench", 64, 64, 1), "q512_s", 1e3),
    ("  p99, us", ("bench", 64, 64, 1), "q512_p99_us", None),
    ("  chaining included, k/s", ("bench", 64, 64, 1), "q512_chained_s", 1e3),
    ("remove, 1 block an event, M/s", ("bench", 64, 64, 1), "rm1_blk_s", 1e6),
    ("remove, 16 blocks an event, M/s", ("bench", 64, 64, 1), "rm16_blk_s", 1e6),
    ("remove a worker, ms", ("bench", 64, 64, 1), "rmworker_ms_mean", None),
    ("  find 128 before, k/s", ("bench", 64, 64, 1), "rmworker_q128_s_before", 1e3),
    ("  find 128 in the second after, k/s", ("bench", 64, 64, 1), "rmworker_q128_s_after", 1e3),
    ("find 128 blocks, 1,000 workers, k/s", ("bench", 1000, 64, 1), "q128_s", 1e3),
    ("find 128 blocks, 7,000 workers, k/s", ("bench", 7000, 64, 1), "q128_s", 1e3),
    ("  p99, us", ("bench", 7000, 64, 1), "q128_p99_us", None),
    ("writer and reader: store, M/s", ("mixed", 64, 64, 1), "store_blk_s", 1e6),
    ("  find 128 beside it, k/s", ("mixed", 64, 64, 1), "reads_s", 1e3),
    ("  p99, us", ("mixed", 64, 64, 1), "read_p99_us", None),
    ("bytes a block, 1 holder", ("mem", 64, 64, 1), "heap_b_per_hb", None),
    ("bytes a block, 8 holders", ("mem", 64, 64, 8), "heap_b_per_hb", None),
    ("bytes left of a block, all workers gone", ("leak", 64, 64, 1), "heap_workers_removed_b", None),
]

SAME = ["seqs", "events", "blocks", "checksum", "q128_digest", "q512_digest"]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--dynamo", required=True)
    ap.add_argument("--peer", default="")
    ap.add_argument("--pin", default="")
    ap.add_argument("--records", default="")
    a = ap.parse_args()
    pin = shlex.split(a.pin)
    records = open(a.records, "w") if a.records else None
    best, seen, failed = {}, {}, False

    def run(name, setup, command):
        nonlocal failed
        out = subprocess.run(command, capture_output=True, text=True)
        if out.returncode != 0:
            sys.exit(f"{shlex.join(command)}: {out.stderr.strip()}")
        figures = json.loads(out.stdout)
        if records:
            records.write(json.dumps(figures) + "\n")
            records.flush()
        for key in SAME:
            want = seen.setdefault((setup, key), (name, figures[key])) if key in figures else None
            if want and want[1] != figures[key]:
                print(f"{key} of {name} is {figures[key]}, of {want[0]} {want[1]}", file=sys.stderr)
                failed = True
        for label, s, key, unit in ROWS:
            if s == setup and key in figures:
                better = min if unit is None else max
                k = (name, label, s, key)
                best[k] = better(best.get(k, figures[key]), figures[key])

    setups = list(dict.fromkeys(r[1] for r in ROWS))
    for i in range(a.rounds):
        for setup in setups:
            mode, w, chunk, rep = setup
            cores = [] if mode == "mixed" else pin
            print(f"round {i + 1} of {a.rounds}: {mode}, {w} workers, {chunk} blocks an event, {rep} holders", file=sys.stderr)
            if a.peer:
                for p in PEERS:
                    if mode == "mixed" and p == "radix":  # one thread only
                        continue
                    run(p, setup, cores + [a.peer, p, mode, f"w={w}", f"chunk={chunk}", f"rep={rep}"])
            ours = [a.dynamo, "bench", "index", "--mode", mode, "--workers", str(w), "--chunk", str(chunk), "--replicas", str(rep)]
            run("dynamo", setup, cores + ours)
            run("engine ids", setup, cores + ours + ["--engine-ids"])

    names = (PEERS if a.peer else []) + ["dynamo", "engine ids"]
    print(f"{'':42}" + "".join(f"{n:>12}" for n in names) + ("   to the better peer" if a.peer else ""))
    for label, setup, key, unit in ROWS:
        values = {n: best.get((n, label, setup, key)) for n in names}
        cells = "".join(f"{v / (unit or 1):12.2f}" if v is not None else f"{'-':>12}" for v in values.values())
        peers = [values[p] for p in PEERS if values.get(p)]
        ratio = ""
        if peers and values["dynamo"]:
            if unit is None:
                ratio = f"{values['dynamo'] / min(peers):14.2f}"
            else:
                ratio = f"{values['dynamo'] / max(peers):14.2f}"
        print(f"{label:42}{cells}{ratio}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
