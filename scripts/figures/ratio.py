"""ratio.py THEIRS OURS…: one table from the peer's lines (`NAME THREADS VALUE`) and Go benchmark output with tok/s metrics."""
import re
import statistics
import sys

theirs = {}
for line in open(sys.argv[1]):
    name, threads, value = line.split()
    theirs[name, int(threads)] = float(value)

ours = {}
for path in sys.argv[2:]:
    for line in open(path):
        m = re.match(r"Benchmark(\w+)/(\d+)/threads=(\d+)\S*\s.*?([\d.]+) tok/s", line)
        if not m:
            continue
        kind, n = m[1].lower(), m[2]
        name = "batch8" if kind == "decode8" else f"{kind}-{n}"
        ours.setdefault((name, int(m[3])), []).append(float(m[4]))

print(f"{'measure':14} {'threads':>7} {'llama.cpp':>10} {'ours':>10} {'ratio':>7}")
for key, peer in theirs.items():
    if key in ours:
        mine = statistics.median(ours[key])
        print(f"{key[0]:14} {key[1]:7} {peer:10.0f} {mine:10.0f} {mine / peer:7.2f}   (ours in each pass: {', '.join(f'{v:.0f}' for v in ours[key])})")
for name, threads in ours:
    if threads == 2 and (name, 1) in ours:
        print(f"{name:14} two threads against one: {statistics.median(ours[name, 2]) / statistics.median(ours[name, 1]):.2f}")
