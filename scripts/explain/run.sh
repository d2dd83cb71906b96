#!/usr/bin/env bash
# Asks a live fleet why requests went where they did: mock workers behind a frontend, in
# each of some modes. What `dynamo explain` says is checked, as text and as JSON, and
# `dynamo explain --verify` makes all decisions that the frontend keeps once more from
# their records.
#   scripts/explain/run.sh
# MODES ("kv dynamo sticky round-robin"), REQUESTS (60) of each, and
# DYNAMO, a binary to use.
set -euo pipefail
cd "$(dirname "$0")/../.."
modes=${MODES:-kv dynamo sticky round-robin} requests=${REQUESTS:-60} workers=12
work=$(mktemp -d)
pids=()
stop() {
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  pids=()
}
finish() {
  local code=$?
  stop
  [ "$code" = 0 ] || { echo "FAIL; the logs:"; tail -n 15 "$work"/*.log 2>/dev/null || true; } >&2
  rm -rf "$work"
}
trap finish EXIT
dynamo=${DYNAMO:-}
if [ -z "$dynamo" ]; then
  dynamo=$work/dynamo
  CGO_ENABLED=0 go build -o "$dynamo" ./cmd/dynamo
fi
export DYN_LOG=error
"$dynamo" pull smollm2 >"$work/pull.log" 2>&1
"$dynamo" trace synth --preset sharegpt --requests "$requests" --seed 1 -o "$work/trace.jsonl"

one() { # MODE
  export DYN_RUN_DIR=$work/run-$1
  rm -f "$work/front"
  "$dynamo" frontend --http-port 0 --addr-file "$work/front" --router-mode "$1" >"$work/frontend.log" 2>&1 &
  pids+=($!)
  "$dynamo" mocker --model-path smollm2 --model-name mock --num-workers "$workers" --speedup-ratio 20 --block-size 16 --max-model-len 131072 >"$work/mockers.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 600); do [ -s "$work/front" ] && break; sleep 0.1; done
  url=http://$(cat "$work/front")
  for _ in $(seq 600); do
    [ "$(curl -fsS "$url/health" 2>/dev/null | grep -o '"instance_id"' | wc -l)" = "$workers" ] && break
    kill -0 "${pids[@]}" 2>/dev/null || return 1
    sleep 0.1
  done
  "$dynamo" bench run --url "$url" --model mock --endpoint completions --prompt-ids --trace "$work/trace.jsonl" --concurrency 8 --ignore-eos --quiet >/dev/null
  for name in first second third; do
    curl -fsS "$url/v1/completions" -H 'Content-Type: application/json' -H "x-request-id: $name" -o /dev/null \
      -d '{"model":"mock","max_tokens":4,"prompt":"The same long question is asked three times, and its beginning is held by one of the workers from the first time on."}'
    "$dynamo" explain "$name" --url "$url" >"$work/$name.txt"
    "$dynamo" explain "$name" --url "$url" --json >"$work/$name.json"
    "$dynamo" explain "$name" --url "$url" --verify >/dev/null
  done
  python3 scripts/explain/check.py "$1" "$work/third.json" "$work/third.txt"
  "$dynamo" explain --verify --url "$url" | tee "$work/verified"
  [ "$(grep -o 'of [0-9]* decisions' "$work/verified" | grep -o '[0-9]*')" -ge $((requests + 3)) ]
  stop
}
for mode in $modes; do one "$mode"; done
echo "ok: explanations and their decisions, once more"
