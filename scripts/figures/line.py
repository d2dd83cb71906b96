"""line.py [FILE]: one line of what `dynamo bench --json` found, read from standard
input, which goes into FILE too if one is named. It ends with 1 if a request failed:
figures with failures among them compare nothing."""

import json
import sys

text = sys.stdin.read()
if not text.strip():
    sys.exit("dynamo bench printed no result")
if len(sys.argv) > 1:
    with open(sys.argv[1], "w") as f:
        f.write(text)
r = json.loads(text)
times = r["ttft_seconds"] if r["ttft_seconds"]["count"] else r["e2e_seconds"]
line = (f"{r['requests']} requests, {r['config']['concurrency']} connections: {r['requests_per_second']:.0f} req/s, "
        f"first content p50 {times['p50'] * 1000:.2f} ms, p99 {times['p99'] * 1000:.2f} ms")
for p in r.get("processes") or []:
    line += f", {p['name']} {p['cpu_seconds'] / max(r['requests'], 1) * 1000:.3f} CPU-s per 1k requests"
print(line, flush=True)
if r["client"]["bottleneck"]:
    print("   the client was the bottleneck: " + r["client"].get("why", ""), flush=True)
if r["errors"] or r.get("partial"):
    sys.exit(f"requests failed: {r['errors']} {r.get('error_details') or ''} {r.get('partial') or ''}")
