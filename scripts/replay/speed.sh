#!/usr/bin/env bash
# How many requests a second of wall time dynamo replay simulates, and in how much
# memory: 20,000 requests with prompts of 4.4k tokens and answers of 67 on average, to 8
# workers with blocks of 64 tokens, round-robin and by KV; beside it NVIDIA Dynamo's
# offline simulator on the same file, where it is installed. Both have the reference's
# polynomial for the time of a step. With LARGE=1 also a million requests over an hour
# to 1,000 workers, which takes minutes.
#   scripts/replay/speed.sh
# ROUNDS (3) alternate. PEER is the Python of the reference; scripts/figures/run.sh
# installs it. CPU (0) is the core both run on. DYNAMO is a binary to use.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dynamo=${DYNAMO:-} peer=${PEER:-$HOME/.cache/dynamo/peers/dynamo-1.6.1/bin/python} cpu=${CPU:-0}
if [ -z "$dynamo" ]; then
  dynamo=$work/dynamo
  CGO_ENABLED=0 go build -o "$dynamo" ./cmd/dynamo
fi
"$dynamo" trace synth --preset documents --requests 20000 --rate 40 --block-size 64 --roots 200 --zipf 0.6 --node-tokens 2600 --first-tokens 1200 --output-tokens 30 \
  --seed 1 --to mooncake -o "$work/trace.jsonl"

# field NAME: a number of the run's JSON.
field() { sed -n "s/.*\"$1\": \([0-9.e+]*\).*/\1/p" "$work/out.json" | head -1; }

# ours TRACE MODE FLAGS…: the run alone, which reads the trace; CPU and memory are the
# whole process's.
ours() {
  local trace=$1 mode=$2
  shift 2
  taskset -c "$cpu" "$dynamo" replay "$trace" --router-mode "$mode" --json "$@" >"$work/out.json" 2>"$work/err" &
  local pid=$! peak=0 ticks=0 now
  while kill -0 "$pid" 2>/dev/null; do
    now=$(awk '/VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null || true)
    [ -n "$now" ] && peak=$now
    now=$(awk '{ print $14 + $15 }' "/proc/$pid/stat" 2>/dev/null || true)
    [ -n "$now" ] && ticks=$now
    sleep 0.02
  done
  wait "$pid" || { cat "$work/err"; return 1; }
  awk -v mode="$mode" -v s="$(field wall_seconds)" -v kb="$peak" -v ticks="$ticks" -v hz="$(getconf CLK_TCK)" -v n="$(field requests)" \
    'BEGIN { printf "dynamo replay, %s: %d requests in %.2f s (%.2f CPU-s): %.0f a second, %.0f MiB\n", mode, n, s, ticks / hz, n / s, kb / 1024 }'
}

# theirs MODE: the call alone, which reads the trace; Python's start is not counted.
theirs() {
  DYN_LOG=error taskset -c "$cpu" "$peer" - "$work/trace.jsonl" "$1" <<'PY' 2>"$work/err" || { tail -n 5 "$work/err"; return 1; }
import resource, sys, time
from dynamo.replay import run_trace_replay
began, cpu = time.time(), time.process_time()
run_trace_replay([sys.argv[1]], num_workers=8, router_mode=sys.argv[2], trace_block_size=64)
s, cpu = time.time() - began, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"Dynamo 1.6.1 offline replay, {sys.argv[2]}: 20000 requests in {s:.2f} s ({cpu:.2f} CPU-s): {20000 / s:.0f} a second, {peak:.0f} MiB")
PY
}

for _ in $(seq "${ROUNDS:-3}"); do
  ours "$work/trace.jsonl" round-robin --num-workers 8 --trace-block-size 64
  ours "$work/trace.jsonl" kv --num-workers 8 --trace-block-size 64
  if [ -x "$peer" ]; then
    theirs round_robin
    theirs kv_router
  fi
done
[ -x "$peer" ] || echo "the reference is not installed at $peer"

if [ -n "${LARGE:-}" ]; then
  "$dynamo" trace synth --preset documents --requests 1000000 --rate 278 --block-size 512 --roots 5000 --zipf 0.6 --node-tokens 3000 --first-tokens 1500 \
    --output-tokens 100 --seed 1 -o "$work/large.jsonl"
  ours "$work/large.jsonl" round-robin --fleet h200-8b:1000
  ours "$work/large.jsonl" kv --fleet h200-8b:1000
fi
