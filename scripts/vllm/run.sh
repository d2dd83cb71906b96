#!/usr/bin/env bash
# One frontend and two real vLLM workers on this machine, one attached to a running
# server and one that starts its own; prints one line a check. Installs vLLM the
# first time (scripts/vllm/install.sh, 6 GB). Takes about five minutes and 9 GB of
# memory on two cores.
#   scripts/vllm/run.sh [BINARY]       without BINARY: builds one
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$(scripts/vllm/install.sh)
work=$(mktemp -d)
pids=()
finish() {
  local code=$?
  for pid in "${pids[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ "$code" = 0 ] || { echo "FAIL; the logs:"; tail -n 15 "$work"/*.log; }
  rm -rf "$work"
}
trap finish EXIT
binary=${1:-}
if [ -z "$binary" ]; then
  binary=$work/dynamo
  CGO_ENABLED=0 go build -o "$binary" ./cmd/dynamo
fi
export DYN_RUN_DIR=$work/run VLLM_CPU_KVCACHE_SPACE=1 VLLM_SERVER_DEV_MODE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
serve=(--max-model-len 2048 --block-size 32 --enforce-eager --dtype float32 --enable-prompt-tokens-details --enable-scale-out)
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
server=http://127.0.0.1:$port

# A server as people run it, with its events on.
VLLM_CPU_OMP_THREADS_BIND=0 setsid "$dir/venv/bin/vllm" serve "$dir/model" --host 127.0.0.1 --port "$port" --served-model-name smollm2 "${serve[@]}" \
  --kv-events-config "{\"enable_kv_cache_events\":true,\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:$((port + 1))\",\"replay_endpoint\":\"tcp://*:$((port + 2))\",\"topic\":\"kv-events\"}" >"$work/vllm.log" 2>&1 &
pids+=($!)
attached_server=$!
"$binary" frontend --http-port 0 --addr-file "$work/front" >"$work/frontend.log" 2>&1 &
pids+=($!)
for _ in $(seq 600); do curl -fsS -o /dev/null "$server/health" 2>/dev/null && break; sleep 0.5; done
curl -fsS -o /dev/null "$server/health"
echo "ok: vLLM $(curl -fsS "$server/version" | python3 -c 'import json,sys; print(json.load(sys.stdin)["version"])') serves at $server"

"$binary" doctor "$dir/model" --engine-url "$server"
echo "ok: doctor"

"$binary" worker "$dir/model" --model-name smollm2 --engine vllm --engine-url "$server" --worker-id a --addr-file "$work/a" >"$work/worker-a.log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do [ -s "$work/a" ] && break; sleep 0.2; done
[ -s "$work/a" ]
url=http://$(cat "$work/front")
for _ in $(seq 100); do curl -fsS -o /dev/null "$url/ready" && break; sleep 0.1; done
python3 scripts/vllm/check.py answers "$url" "$server"

VLLM_CPU_OMP_THREADS_BIND=1 "$binary" vllm --model "$dir/model" --served-model-name smollm2 --engine-command "$dir/venv/bin/vllm" --worker-id b --addr-file "$work/b" \
  --kv-events-config '{"enable_kv_cache_events":true,"publisher":"zmq"}' "${serve[@]}" >"$work/worker-b.log" 2>&1 &
pids+=($!)
for _ in $(seq 1200); do [ -s "$work/b" ] && break; sleep 0.2; done
[ -s "$work/b" ]
echo "ok: dynamo vllm started a server of its own"
for _ in $(seq 100); do [ "$(curl -fsS "$url/health" | grep -o '"instance_id"' | wc -l)" = 2 ] && break; sleep 0.2; done
python3 scripts/vllm/check.py killed "$url" "$server" "$attached_server"
"$binary" status || true # the worker of the dead server has left or says so
