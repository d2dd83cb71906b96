#!/usr/bin/env bash
# A cluster of 64 mock H200 workers behind one frontend on this machine, under a
# trace with the shape of Mooncake's published conversations: two runs, one with
# round-robin and one with KV-aware routing, with a report each and a comparison of
# both. Everything but the arithmetic is real: HTTP, tokenizing, scheduling, KV blocks
# and their events, streaming.
#   scripts/fleet/run.sh [OUTPUT]      default: ./fleet-report
# SPEEDUP (default 8) plays the trace, which has 3.4 requests a second, so much faster;
# DURATION (default 60s) is the time a run takes; WORKERS (64) and PERF (h200-8b).
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-fleet-report}
speedup=${SPEEDUP:-8} duration=${DURATION:-60s} workers=${WORKERS:-64} perf=${PERF:-h200-8b}
mkdir -p "$out"
work=$(mktemp -d)
pids=()
finish() {
  local code=$?
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ "$code" = 0 ] || { echo "FAIL; the logs:"; tail -n 15 "$work"/*.log; }
  rm -rf "$work"
}
trap finish EXIT
dynamo=${DYNAMO:-}
if [ -z "$dynamo" ]; then
  dynamo=$work/dynamo
  CGO_ENABLED=0 go build -o "$dynamo" ./cmd/dynamo
fi
export DYN_RUN_DIR=$work/run DYN_LOG=error
model=${MODEL:-smollm2}
"$dynamo" pull "$model" >"$work/pull.log" 2>&1

# The trace, and what it could share.
"$dynamo" trace synth --preset mooncake-conversation --requests 4000 --seed 1 -o "$work/trace.jsonl.gz"
"$dynamo" trace stat "$work/trace.jsonl.gz" | tee "$out/trace.txt"

start() { # MODE
  rm -f "$work/front"
  "$dynamo" frontend --http-port 0 --addr-file "$work/front" --router-mode "$1" >"$work/frontend.log" 2>&1 &
  front=$!
  "$dynamo" mocker --model-path "$model" --model-name mock --perf-model "$perf" --num-workers "$workers" --max-model-len 131072 >"$work/mockers.log" 2>&1 &
  mockers=$!
  pids=("$front" "$mockers")
  for _ in $(seq 300); do [ -s "$work/front" ] && break; sleep 0.1; done
  url=http://$(cat "$work/front")
  for _ in $(seq 300); do
    [ "$(curl -fsS "$url/health" 2>/dev/null | grep -o '"instance_id"' | wc -l)" = "$workers" ] && return
    sleep 0.1
  done
  echo "not all of $workers workers came up" >&2
  return 1
}
stop() {
  for pid in "${pids[@]}"; do kill -TERM "$pid"; done
  wait "${pids[@]}" || true
  pids=()
}
for mode in round-robin kv; do
  start "$mode"
  "$dynamo" bench run --url "$url" --model mock --endpoint completions --tokenizer "$model" --trace "$work/trace.jsonl.gz" --speedup "$speedup" --duration "$duration" \
    --ignore-eos --ttft 2s --itl 50ms --pid "frontend=$front" --pid "mockers=$mockers" --output "$out/$mode" --quiet
  curl -fsS "$url/v1/router" >"$out/$mode/router.json"
  stop
done
"$dynamo" bench compare "$out/round-robin" "$out/kv" --html "$out/compare.html"
echo "reports: $out/round-robin/report.html $out/kv/report.html $out/compare.html"
