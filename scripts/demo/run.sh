#!/usr/bin/env bash
# What KV-aware routing brings, with real tokens: the embedded engine as two and as
# four workers of one thread, chats of several turns under 16 system prompts of about
# 900 tokens, routed by round-robin and by kv in turn. All workers together have room
# for those prompts and the chats in progress, one alone has not, as in a fleet.
# Prints one table; leaves each run's report, the comparisons and a picture, demo.svg,
# in OUTPUT.
#   scripts/demo/run.sh [OUTPUT]       default: ./demo-report
# FLEETS ("2 4") are the numbers of workers, ROUNDS (3) how often each is measured in
# either mode, REQUESTS (90) how many each time, out of the middle of the trace: the
# turn before of each chat, and one under each system prompt, go first, unmeasured. The
# trace is played about as fast as round-robin can follow: prompts that nobody holds,
# measured first, say how fast that is here. RATE says it instead; 1 is 1.3 requests a
# second.
# DYNAMO is a binary to use; with MIN_HIT and MAX_RATIO it fails beyond these bounds.
# SHORT=1 is a form for continuous integration: two workers, one round of a short trace
# from cold caches, played as fast as it is answered. It fails unless every request is
# answered, kv finds more in the caches than round-robin, and both say the same; how
# long anything takes depends on the machine's other work, and is not judged.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-demo-report}
model=smollm2 fleets=${FLEETS:-2 4} rounds=${ROUNDS:-3} requests=${REQUESTS:-90} rate=${RATE:-}
skip=200 roots=16 prompt=900 turns=6 longest=10 gap=10 answer=12
if [ -n "${SHORT:-}" ]; then fleets=2 rounds=1 requests=36 skip=0 roots=6 prompt=300 turns=4 longest=6 gap=0.01 answer=8 rate=1; fi
fleet_kv=$((448 << 20))
mkdir -p "$out"
rm -rf "$out"/*-workers # of a run before
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
"$dynamo" trace synth --preset sharegpt --requests $((skip + requests)) --seed 1 --block-size 16 --arrival poisson --rate 1 --share 1 --roots "$roots" --depth 1 \
  --branching 1 --zipf 0 --node-tokens "$prompt" --turns "$turns" --max-turns "$longest" --first-tokens 24 --follow-tokens 20 --output-tokens "$answer" --gap "$gap" --max-input 2600 -o "$work/all.jsonl"
"$dynamo" trace convert "$work/all.jsonl" --skip "$skip" --rebase -o "$work/measured.jsonl"
if [ "$skip" -gt 0 ]; then
  "$dynamo" trace convert "$work/all.jsonl" --requests "$skip" -o "$work/before.jsonl"
  python3 scripts/demo/table.py before "$work/before.jsonl" "$work/measured.jsonl" >"$work/warm.jsonl"
fi
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
  if [ -n "${SHORT:-}" ]; then
    bench --trace "$work/measured.jsonl" --concurrency 2 --output "$to" --pid "serve=$pid" >/dev/null
    curl -fsS "$url/v1/chat/completions" -H 'Content-Type: application/json' \
      -d "{\"model\":\"$model\",\"temperature\":0,\"max_tokens\":16,\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}]}" >"$to/answer.json"
  else
    bench --trace "$work/warm.jsonl" --concurrency 2 --records "$to/warm.jsonl" >/dev/null
    bench --trace "$work/measured.jsonl" --speedup "$rate" --output "$to" --pid "serve=$pid" >/dev/null
  fi
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
[ -z "${SHORT:-}" ] || python3 scripts/demo/table.py check "$out"

python3 scripts/demo/picture.py "$out"
echo "pages: $out/*-workers/round-*/compare.html, …/kv/report.html, …/round-robin/report.html"
