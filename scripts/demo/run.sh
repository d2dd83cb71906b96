#!/usr/bin/env bash
# What KV-aware routing brings, with real tokens: the embedded engine as two and as
# four workers of one thread, chats of several turns under 16 system prompts of about
# 900 tokens, routed by round-robin and by kv in turn. All workers together have room
# for those prompts and the chats in progress, one alone has not, as in a fleet.
# Prints one table; leaves each run's report, the comparisons and a picture in OUTPUT.
#   scripts/demo/run.sh [OUTPUT]       default: ./demo-report
# FLEETS ("2 4") are the numbers of workers, ROUNDS (3) how often each is measured in
# either mode, REQUESTS (90) how many each time, out of the middle of the trace: the
# turn before of each chat, and one under each system prompt, go first, unmeasured. The
# trace is played about as fast as round-robin can follow: prompts that nobody holds,
# measured first, say how fast that is here. RATE says it instead; 1 is 1.3 requests a
# second.
# DYNAMO is a binary to use. SHORT=1 is a form for continuous integration: two workers,
# one round; with MIN_HIT and MAX_RATIO it fails beyond these bounds.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-demo-report}
model=smollm2 fleets=${FLEETS:-2 4} rounds=${ROUNDS:-3} requests=${REQUESTS:-90} rate=${RATE:-}
if [ -n "${SHORT:-}" ]; then fleets=2 rounds=1 requests=40; fi
skip=200 fleet_kv=$((448 << 20))
mkdir -p "$out"
work=$(mktemp -d)
pid=
finish() {
  local code=$?
  [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true
  wait 2>/dev/null || true
  [ "$code" = 0 ] || { echo "FAIL; the log:"; tail -n 15 "$work"/serve.log; } >&2
  rm -rf "$work"
}
trap finish EXIT
dynamo=${DYNAMO:-}
if [ -z "$dynamo" ]; then
  dynamo=$work/dynamo
  CGO_ENABLED=0 go build -o "$dynamo" ./cmd/dynamo
fi
export DYN_RUN_DIR=$work/run DYN_LOG=error
"$dynamo" pull "$model" >"$work/serve.log" 2>&1

# --speedup makes another rate of this one.
"$dynamo" trace synth --preset sharegpt --requests $((skip + requests)) --seed 1 --block-size 16 --arrival poisson --rate 1 --share 1 --roots 16 --depth 1 \
  --branching 1 --zipf 0 --node-tokens 900 --turns 6 --max-turns 10 --first-tokens 24 --follow-tokens 20 --output-tokens 12 --gap 10 --max-input 2600 -o "$work/all.jsonl"
"$dynamo" trace convert "$work/all.jsonl" --skip "$skip" --rebase -o "$work/measured.jsonl"
"$dynamo" trace convert "$work/all.jsonl" --requests "$skip" -o "$work/before.jsonl"
python3 scripts/demo/table.py before "$work/before.jsonl" "$work/measured.jsonl" >"$work/warm.jsonl"
"$dynamo" trace stat "$work/measured.jsonl" >"$out/trace.txt"

start() { # MODE WORKERS
  rm -f "$work/address"
  "$dynamo" serve "$model" --num-workers "$2" --threads 1 --kv-cache-bytes $((fleet_kv / $2)) --context-length 4096 --router-mode "$1" \
    --http-port 0 --addr-file "$work/address" >"$work/serve.log" 2>&1 &
  pid=$!
  for _ in $(seq 300); do [ -s "$work/address" ] && break; sleep 0.1; done
  url=http://$(cat "$work/address")
  for _ in $(seq 300); do
    [ "$(curl -fsS "$url/health" 2>/dev/null | grep -o '"instance_id"' | wc -l)" = "$2" ] && return
    sleep 0.1
  done
  echo "not all of $2 workers came up" >&2
  return 1
}
stop() {
  kill -TERM "$pid"
  wait "$pid" || true
  pid=
}
bench() { # FLAGS…
  "$dynamo" bench run --url "$url" --model "$model" --tokenizer "$model" --ignore-eos --quiet "$@"
}

# pace sets rate: a little more than the requests that two workers can compute from their
# first token on. Round-robin finds about half of the tokens cached, so it can follow.
pace() {
  [ -z "$rate" ] || return 0
  start round-robin 2
  bench --concurrency 2 --requests 8 --input-tokens 950 --output-tokens 16 --output "$work/cold" >/dev/null
  stop
  rate=$(python3 scripts/demo/table.py rate "$work/cold")
  echo "prompts that nobody holds: $(python3 scripts/demo/table.py cold "$work/cold"); the trace is played $rate times as fast"
}
one() { # MODE WORKERS ROUND
  local to=$out/$2-workers/round-$3/$1
  mkdir -p "$to"
  start "$1" "$2"
  bench --trace "$work/warm.jsonl" --concurrency 2 --records "$to/warm.jsonl" >/dev/null
  bench --trace "$work/measured.jsonl" --speedup "$rate" --output "$to" --pid "serve=$pid" >/dev/null
  curl -fsS "$url/v1/router" >"$to/router.json"
  "$dynamo" top --url "$url" --once >"$to/top.txt"
  stop
}

pace
for workers in $fleets; do
  for round in $(seq "$rounds"); do
    order="round-robin kv"
    [ $((round % 2)) = 1 ] || order="kv round-robin"
    for mode in $order; do one "$mode" "$workers" "$round"; done
    pair=$out/$workers-workers/round-$round
    "$dynamo" bench compare "$pair/round-robin" "$pair/kv" --html "$pair/compare.html" >"$pair/compare.txt"
  done
done
python3 scripts/demo/table.py table "$out" | tee "$out/table.txt"

# The picture is of the round whose ratio is the middle one, with the fewest workers.
pair=$(python3 scripts/demo/table.py middle "$out")
"$dynamo" bench compare "$pair/round-robin" "$pair/kv" --plots "$work/plots" >/dev/null
cp "$work/plots/compare-ttft.png" "$out/kv-routing.png"
echo "picture: $out/kv-routing.png; pages: $out/*-workers/round-*/compare.html, …/kv/report.html, …/round-robin/report.html"
