#!/usr/bin/env python3
"""table.py FILE …: the JSON lines of peers.py and TestSpeed as tables."""
import json, sys

rows = [json.loads(l) for f in sys.argv[1:] for l in open(f) if l.startswith("{")]
print("Encode, MB/s (10^6 bytes, of processor time), one core, pieces of at most 4 KiB: first pass / new text after as much again / text seen before (pieces whose ids differ)")
impls = ["hf", "gigatoken", "fastokens", "dynamo"]
print("%-10s %-6s" % ("vocabulary", "corpus"), *("%26s" % i for i in impls))
cells = {(r["vocab"], r["corpus"], r["impl"]): r for r in rows if "decode_mtok_s" not in r}
for v in dict.fromkeys(r["vocab"] for r in rows):
    for c in ("prose", "code", "multi"):
        out = []
        for i in impls:
            r = cells.get((v, c, i), {})
            out.append("%26s" % ("%.1f / %.1f / %.1f (%d)" % (r["cold"], r["new"], r["again"], r["differ"]) if "new" in r else "cannot load" if r else "-"))
        print("%-10s %-6s" % (v, c), *out)
print("Decode one id at a time, million tokens/s of processor time")
for r in rows:
    if "decode_mtok_s" in r:
        print("%-10s %-6s %-9s %8.2f" % (r["vocab"], r["corpus"], r["impl"], r["decode_mtok_s"]))
