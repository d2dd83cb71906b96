#!/usr/bin/env bash
# Aggregated against disaggregated serving: reports of simulated fleets, of mockers and of
# the embedded engine, in OUT (default: a new directory); and one trace on mockers, a prefill
# worker and two decode workers, beside what 'dynamo replay' says of it. SHORT=1 asks fewer
# requests. DYNAMO names a binary; without it one is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
work=$(mktemp -d)
pids=()
end() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap end EXIT
bin=${DYNAMO:-}
if [ -z "$bin" ]; then
  bin=$work/dynamo
  go build -o "$bin" ./cmd/dynamo
fi
n=2000 live=64 rate=3 traced=400
[ -z "${SHORT:-}" ] || n=300 live=12 traced=90

echo "== simulated fleet"
"$bin" bench disagg -n "$n" -o "$out/sim"
echo "== mockers"
"$bin" bench disagg --on mocker -n "$live" --loads 2,4 -o "$out/mocker"
if [ -z "${SHORT:-}" ]; then
  echo "== embedded engine"
  "$bin" bench disagg --on native -n "$live" --loads 1,2 --ttft 3s --itl 200ms --input-tokens 192 --prefix-tokens 128 --output-tokens 16 -o "$out/native"
fi

echo "== one trace: predicted, and on mockers"
trace=$work/trace.jsonl
"$bin" trace synth --preset mooncake-toolagent --requests "$traced" --rate "$rate" --seed 1 -o "$trace"
place=(--discovery-backend=file --run-dir="$work/run" --state-dir="$work/state")
"$bin" frontend "${place[@]}" --http-port 0 --addr-file "$work/addr" --router-mode kv --disaggregation always >"$work/frontend.log" 2>&1 &
pids+=($!)
for role in prefill decode decode; do
  "$bin" worker smollm2 "${place[@]}" --engine mocker --model-name m --context-length 131072 --perf-model h200-8b --kv-transfer-bandwidth 10 \
    --disaggregation-mode "$role" --addr-file "$work/worker.${#pids[@]}" >"$work/worker.${#pids[@]}.log" 2>&1 &
  pids+=($!)
done
for file in addr worker.1 worker.2 worker.3; do
  for _ in $(seq 300); do [ -s "$work/$file" ] && break || sleep 0.2; done
done
sleep 1 # until the frontend has found them
"$bin" replay "$trace" --fleet h200-8b:1:prefill,h200-8b:2:decode --disaggregation always --router-mode kv --kv-transfer-bandwidth 10 \
  --context-length 131072 | tee "$out/predicted.txt"
"$bin" bench --url "http://$(cat "$work/addr")" -m m --endpoint completions --prompt-ids --ignore-eos --trace "$trace" -q -o "$out/measured" | tee "$out/measured.txt"
echo "reports: $out"
