"""client.py RESULT [MADE]: what the load generator cost in a run of `dynamo bench
--json` and, with MADE, which is what a server with delays of its own says it did
(scripts/load -canned -first -pace), whether every percentile is within 2 % or 1 ms."""

import json
import sys

with open(sys.argv[1]) as f:
    r = json.load(f)
used, chunks = r["client"]["cpu_seconds"], r["chunks"]
print(f"{chunks / r['duration_seconds']:.0f} chunks/s at {used / r['duration_seconds'] * 100:.1f} % of a core: {chunks / used:.0f} chunks per CPU-s", end="")
print(f", {used / chunks * 20000 * 100:.1f} % of a core at 20,000 chunks/s" if len(sys.argv) > 2 else "")
if len(sys.argv) > 2:
    off = 0
    with open(sys.argv[2]) as f:
        for line in f:
            name, *made = line.split()
            parts = []
            for p, v in (m.split("=") for m in made):
                v, got = float(v), r[name + "_seconds"][p] * 1000
                off += abs(got - v) > max(1, 0.02 * v)
                parts.append(f"{p} {got:.3f} of {v:.3f}")
            print(f"  {name}, found of made: {', '.join(parts)} ms")
    print(f"  percentiles off by more than 2 % and 1 ms: {off}")
