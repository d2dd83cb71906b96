#!/usr/bin/env bash
# How far the simulator is from real processes: one trace is played to mock workers
# behind a frontend, over HTTP and in real time, and by dynamo replay; the ratios of
# both (B is the simulation) are printed, and it fails when one of TTFT and ITL at p50
# and p90 is more than LIMIT percent off.
#   scripts/replay/fidelity.sh [OUTPUT]      default: ./fidelity-report
# WORKERS (4), PERF (h200-8b), MODE (round-robin), PRESET (documents), RATE (2.5
# requests a second), REQUESTS (150), LIMIT (7) and DYNAMO, a binary to use. The machine should
# be idle: what delays a process is not simulated.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-fidelity-report}
workers=${WORKERS:-4} perf=${PERF:-h200-8b} mode=${MODE:-round-robin} preset=${PRESET:-documents} rate=${RATE:-2.5} requests=${REQUESTS:-150} limit=${LIMIT:-7}
mkdir -p "$out"
work=$(mktemp -d)
pids=()
finish() {
  local code=$?
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ "$code" = 0 ] || { echo "FAIL ($code); the logs:"; tail -n 15 "$work"/*.log 2>/dev/null || true; }
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
"$dynamo" trace synth --preset "$preset" --rate "$rate" --requests "$requests" --seed 1 -o "$work/trace.jsonl"

"$dynamo" frontend --http-port 0 --addr-file "$work/front" --router-mode "$mode" >"$work/frontend.log" 2>&1 &
pids+=($!)
"$dynamo" mocker --model-path "$model" --model-name mock --perf-model "$perf" --num-workers "$workers" --max-model-len 131072 >"$work/mockers.log" 2>&1 &
pids+=($!)
for _ in $(seq 300); do [ -s "$work/front" ] && break; sleep 0.1; done
url=http://$(cat "$work/front")
for _ in $(seq 300); do
  [ "$(curl -fsS "$url/health" 2>/dev/null | grep -o '"instance_id"' | wc -l)" = "$workers" ] && break
  sleep 0.1
done
"$dynamo" bench run --url "$url" --model mock --endpoint completions --prompt-ids --trace "$work/trace.jsonl" --ignore-eos \
  --output "$out/real" --quiet
for pid in "${pids[@]}"; do kill -TERM "$pid"; done
wait "${pids[@]}" 2>/dev/null || true
pids=()

"$dynamo" replay "$work/trace.jsonl" --fleet "$perf:$workers" --router-mode "$mode" --context-length 131072 --output "$out/simulated"
conditions=()
for m in ttft_p50 ttft_p90 itl_p50 itl_p90; do
  conditions+=(--fail-if "$m>1.$(printf %02d "$limit")" --fail-if "$m<0.$(printf %02d $((100 - limit)))")
done
"$dynamo" bench compare "$out/real" "$out/simulated/$mode" --html "$out/compare.html" "${conditions[@]}"
echo "within $limit % in TTFT and ITL at p50 and p90; report: $out/compare.html"
