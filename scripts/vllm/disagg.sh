#!/usr/bin/env bash
# Prompts computed by one real vLLM and answered by another, under dynamo: one frontend,
# one prefill and one decode worker, each with a vLLM 0.32 of its own that moves KV by
# its stock NixlConnector. Prints one line a check. Installs vLLM and NIXL the first time
# (scripts/vllm/install.sh, 6 GB). Takes about five minutes and 9 GB of memory on two cores.
#   scripts/vllm/disagg.sh [BINARY]       without BINARY: builds one
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(scripts/vllm/install.sh)
if ! "$dir/venv/bin/python" -c 'import nixl' 2>/dev/null; then
  "$dir/venv/bin/uv" pip install --quiet --python "$dir/venv/bin/python" nixl==1.5.1 nixl-cu13==1.5.1 --override "$dir/override.txt" >&2
fi
work=$(mktemp -d)
pids=()
finish() {
  local code=$?
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ "$code" = 0 ] || { echo "FAIL; the logs:"; tail -n 25 "$work"/*.log; }
  rm -rf "$work"
}
trap finish EXIT
binary=${1:-}
if [ -z "$binary" ]; then
  binary=$work/dynamo
  CGO_ENABLED=0 go build -o "$binary" ./cmd/dynamo
fi
export DYN_RUN_DIR=$work/run VLLM_CPU_KVCACHE_SPACE=1 VLLM_SERVER_DEV_MODE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_NIXL_SIDE_CHANNEL_HOST=127.0.0.1 UCX_TLS=tcp,shm,self
serve=(--max-model-len 2048 --block-size 32 --enforce-eager --dtype float32)

"$binary" frontend --http-port 0 --disaggregation always --addr-file "$work/front" >"$work/frontend.log" 2>&1 &
pids+=($!)
worker() { # MODE CORE ID: a worker whose server computes on that core
  VLLM_CPU_OMP_THREADS_BIND=$2 "$binary" worker "$dir/model" --model-name smollm2 --engine vllm --disaggregation-mode "$1" --engine-command "$dir/venv/bin/vllm" \
    --worker-id "$3" --addr-file "$work/$1" -- "${serve[@]}" >"$work/$1.log" 2>&1 &
  pids+=($!)
  eval "$1=$!"
}
worker prefill 0 a
worker decode 1 d
until_file() { for _ in $(seq 3000); do [ -s "$1" ] && return; kill -0 "$2" || return 1; sleep 0.2; done; echo "waited in vain for $1" >&2; return 1; }
until_file "$work/front" "${pids[0]}"
until_file "$work/prefill" "$prefill"
until_file "$work/decode" "$decode"
child() { pgrep -P "$1" -f 'vllm serve' | head -n 1; }
server() { echo "http://127.0.0.1:$(tr '\0' '\n' <"/proc/$(child "$1")/cmdline" | grep -A1 -x -e --port | tail -n 1)"; }
url=http://$(cat "$work/front")
p=$(server "$prefill") d=$(server "$decode")
for _ in $(seq 300); do [ "$(curl -fsS "$url/health" 2>/dev/null | grep -o '"instance_id"' | wc -l)" = 2 ] && break; sleep 0.2; done
# NIXL's progress thread polls without rest; at idle priority it takes what is left over.
for w in "$prefill" "$decode"; do
  for pid in $(pgrep -g "$(child "$w")" -f 'VLLM::Worker'); do
    python3 scripts/vllm/disagg.py calm "$pid"
  done
done
echo "ok: vLLM $(curl -fsS "$p/version" | python3 -c 'import json,sys; print(json.load(sys.stdin)["version"])') as a prefill and as a decode worker"
python3 scripts/vllm/disagg.py identical "$url" "$p" "$d" "${N:-40}"
python3 scripts/vllm/disagg.py cancelled "$url" "$p" "$d"
python3 scripts/vllm/disagg.py killed "$url" "$p" "$d" "$(child "$prefill")"
# The frontend hears that the server is back within a second after the worker knows.
ready() { [ "$(curl -fsS "$url/health" | grep -o '"state":"ready"' | wc -l)" = 2 ]; }
for _ in $(seq 1200); do ready && break; sleep 0.5; done
ready
python3 scripts/vllm/disagg.py identical "$url" "$(server "$prefill")" "$d" 4
echo "ok: the killed prefill server was started again, and computes prompts"
