"""Times jinja2 on the benchmarks of chat/bench_test.go and prints both sides.

Usage: bench.py TESTDATA GO_BENCH_OUTPUT. Use bench.sh.
"""

import bz2
import json
import os
import re
import sys
import time

import jinja2
from transformers.utils import chat_template_utils

testdata, ours = sys.argv[1:]
with bz2.open(os.path.join(testdata, "golden.json.bz2")) as f:
    golden = json.load(f)
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "../../chat/bench_test.go")) as f:
    benchmarks = re.findall(r'\{"([^"]+)", "([^"]+)", "([^"]+)"\}', f.read())
with open(ours) as f:
    runs = re.findall(r"^BenchmarkRender/(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op", f.read(), re.M)
# The best of several runs on both sides: a busy machine only ever adds.
go = {}
for name, ns in runs:
    go[name] = min(go.get(name, float("inf")), float(ns) / 1e3)

print(f"{'µs per render':<18}{'jinja2 ' + jinja2.__version__:>14}{'chat':>10}{'ratio':>9}{'prompt bytes':>14}")
for name, template, conversation in benchmarks:
    with open(os.path.join(testdata, "templates", template)) as f:
        compiled = chat_template_utils._compile_jinja_template(f.read())
    case = golden["cases"][conversation]
    values = dict(
        golden["vars"],
        messages=chat_template_utils._alias_reasoning_fields(
            [{k: v for k, v in m.items() if v is not None} for m in case["messages"]]
        ),
        tools=case.get("tools"),
        documents=case.get("documents"),
        add_generation_prompt=case.get("add_generation_prompt", False),
        **case.get("kwargs", {}),
    )
    text = compiled.render(**values)
    best = float("inf")
    for _ in range(7):
        begin = time.perf_counter()
        for _ in range(200):
            compiled.render(**values)
        best = min(best, (time.perf_counter() - begin) / 200 * 1e6)
    mine = go[name]
    print(f"{name:<18}{best:>14.1f}{mine:>10.1f}{best / mine:>8.0f}×{len(text.encode()):>14}")
