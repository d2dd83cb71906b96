"""picture.py OUT: an SVG of the runs that scripts/demo/run.sh left in OUT: for each
number of workers how the times to the first token of round-robin and of kv are
distributed, over all rounds, and how much of the prompts was found in the caches.
"""
import html
import json
import math
import pathlib
import sys

import table

WIDTH, PANEL, TOP, PLOT = 880, 420, 74, 190
MODES = (("round-robin", "a"), ("kv", "b"))

# A panel of its own behind everything, so that it can be read on any page; viewers
# that say so get it dark.
STYLE = """
svg{font-family:"Helvetica Neue",Helvetica,Arial,sans-serif}
.p{fill:#fff;stroke:#d8dee4}.g{stroke:#e3e7ec}.x{stroke:#8b949e}
text{fill:#3b424c;font-size:12px}.h{font-size:17px;font-weight:600;fill:#14181d}.t{font-size:13.5px;font-weight:600;fill:#14181d}.n{font-size:11px;fill:#59626d}
.a{stroke:#d55e00}.b{stroke:#0072b2}.l{fill:none;stroke-width:2.4;stroke-linejoin:round}.m{stroke-dasharray:3 3;stroke-width:1.2}
.fa{fill:#d55e00}.fb{fill:#0072b2}.ta{fill:#a84a00;font-weight:600}.tb{fill:#005f96;font-weight:600}.q{fill:#eef1f4}.ta,.tb{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}
@media(prefers-color-scheme:dark){.p{fill:#0d1117;stroke:#30363d}.g{stroke:#21262d}.x{stroke:#6e7681}text{fill:#c9d1d9}.h,.t{fill:#f0f3f6}.n{fill:#9198a1}
.a{stroke:#ff9b55}.b{stroke:#58a6ff}.fa{fill:#ff9b55}.fb{fill:#58a6ff}.ta{fill:#ff9b55}.tb{fill:#58a6ff}.q{fill:#21262d}.ta,.tb{stroke:#0d1117}}
"""


def milliseconds(v):
    return f"{v:.0f} ms" if v < 1000 else f"{v / 1000:.2g} s" if v < 10000 else f"{v / 1000:.0f} s"


class Drawing:
    """The elements of an SVG."""

    def __init__(self):
        self.parts = []

    def add(self, element, body=None, **attributes):
        written = "".join(f' {k.replace("_", "-")}="{round(v, 1) if isinstance(v, float) else html.escape(str(v))}"' for k, v in attributes.items() if v is not None)
        self.parts.append(f"<{element}{written}" + ("/>" if body is None else f">{html.escape(body)}</{element}>"))

    def text(self, x, y, body, style=None, anchor=None):
        self.add("text", body, x=float(x), y=float(y), **{"class": style, "text_anchor": anchor})

    def line(self, x1, y1, x2, y2, style):
        self.add("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), **{"class": style})


def distribution(d, left, runs):
    """The share of requests whose first token came within a time, on a scale of tenfolds."""
    times = {mode: sorted(max(table.ttft(r), 1.0) for r in runs[mode]) for mode, _ in MODES}
    low, high = min(t[0] for t in times.values()), max(t[-1] for t in times.values())
    low, high = nice(low, math.floor), nice(high, math.ceil)
    right, bottom = left + PANEL - 70, TOP + 34 + PLOT
    top = bottom - PLOT
    at = lambda v: left + (right - left) * (math.log10(v) - math.log10(low)) / (math.log10(high) - math.log10(low))
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - share * PLOT
        d.line(left, y, right, y, "x" if share == 0 else "g")
        d.text(left - 6, y + 4, f"{100 * share:.0f} %", anchor="end")
    for tick in ticks(low, high):
        d.line(at(tick), top, at(tick), bottom, "g")
        d.text(at(tick), bottom + 17, milliseconds(tick), anchor="middle")
    medians = []
    for mode, style in MODES:
        t = times[mode]
        points = [(at(table.quantile(t, max(q / 60, 1 / len(t)))), bottom - q / 60 * PLOT) for q in range(61)]
        d.add("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), **{"class": f"l {style}"})
        medians.append((table.quantile(t, 0.5), mode, style))
    for i, (median, mode, style) in enumerate(sorted(medians)):
        x = at(median)
        d.line(x, bottom - PLOT / 2, x, bottom, f"m {style}")
        d.add("circle", cx=x, cy=float(bottom - PLOT / 2), r=4, **{"class": f"f{style}"})
        beside = (x - 9, "end") if i == 0 and x - left > 85 else (x + 9, None)
        y = bottom - PLOT / 2 + (-9 if i == 0 else 19)
        d.text(beside[0], y, f"{mode} {milliseconds(median)}", f"t{style}", beside[1])


def nice(v, way):
    """The next of 1, 2 and 5 times a power of ten, upwards or downwards."""
    power = 10 ** math.floor(math.log10(v))
    steps = [s * power for s in (1, 2, 5, 10)]
    return max(s for s in steps if s <= v * 1.0001) if way is math.floor else min(s for s in steps if s >= v * 0.9999)


def ticks(low, high):
    """1, 2 and 5 times powers of ten from low to high, or the powers if those are many."""
    found = [s * 10.0**p for p in range(0, 7) for s in (1, 2, 5) if low <= s * 10.0**p <= high]
    return found if len(found) <= 7 else [v for v in found if math.log10(v) % 1 < 1e-9 or v in (low, high)]


def hits(d, left, runs):
    """A bar for each mode: the share of the prompts' tokens that was cached."""
    top, width = TOP + 34 + PLOT + 56, PANEL - 70 - 122
    d.text(left - 34, top - 8, "prompt tokens found in the caches", "n")
    for i, (mode, style) in enumerate(MODES):
        y, share = top + 4 + 24 * i, table.hit(runs[mode])
        d.text(left + 44, y + 13, mode, f"t{style}", "end")
        d.add("rect", x=float(left + 52), y=float(y), width=float(width), height=17, rx=3, **{"class": "q"})
        d.add("rect", x=float(left + 52), y=float(y), width=width * share / 100, height=17, rx=3, **{"class": f"f{style}"})
        d.text(left + 60 + width, y + 13, f"{share:.1f} %", f"t{style}")


def main():
    out = pathlib.Path(sys.argv[1])
    found = table.rounds(out)
    if not found:
        sys.exit(f"there is no run in {out}")
    first = found[min(found)][0]["path"] / "kv" / "result.json"
    result = json.loads(first.read_text())
    fleets = sorted(found)[:2]
    width = WIDTH if len(fleets) > 1 else 520
    height = TOP + 34 + PLOT + 56 + 62 + 40
    d = Drawing()
    d.add("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=8, **{"class": "p"})
    d.text(20, 31, "The same chats, routed by round-robin and by kv", "h")
    requests = sum(len(one["kv"]) for one in found[fleets[0]])
    d.text(20, 52, f"real tokens of {result['config']['model']} on the embedded engine, workers of one thread; {requests} requests in each mode", "n")
    for i, workers in enumerate(fleets):
        left = 62 + i * (PANEL + 20)
        runs = {mode: [r for one in found[workers] for r in one[mode]] for mode, _ in MODES}
        ratio = table.quantile(map(table.ttft, runs["kv"]), 0.5) / table.quantile(map(table.ttft, runs["round-robin"]), 0.5)
        d.text(left - 42, TOP + 12, f"{workers} workers: TTFT p50 of kv is {ratio:.2f} of round-robin’s", "t")
        d.text(left - 42, TOP + 26, "share of requests whose first token (TTFT) came within …", "n")
        distribution(d, left, runs)
        hits(d, left, runs)
    d.text(20, height - 16, f"{result['machine']}; {result['started'][:10]}; scripts/demo/run.sh", "n")
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="Time to the first token and cache hit rate, round-robin and kv">'
           f"<style>{STYLE}</style>" + "".join(d.parts) + "</svg>\n")
    (out / "demo.svg").write_text(svg)
    print(f"picture: {out / 'demo.svg'}, {len(svg)} bytes")


if __name__ == "__main__":
    main()
