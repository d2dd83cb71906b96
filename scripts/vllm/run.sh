#!/usr/bin/env bash
# One frontend, two real vLLM workers on this machine, one attached to a running
# server and one that starts its own, and the embedded engine with the same weights;
# prints one line a check. Installs vLLM the first time (scripts/vllm/install.sh,
# 6 GB). Takes about eight minutes and 9 GB of memory on two cores.
#   scripts/vllm/run.sh [--full] [BINARY]       without BINARY: builds one
# --full adds what takes an hour: the conformance suite on both routes, 500 texts,
# 500 probes of the cache, and the ledger of events against the replay socket.
set -euo pipefail
cd "$(dirname "$0")/../.."
full=
if [ "${1:-}" = --full ]; then full=1; shift; fi
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
go build -o "$work/latency" ./scripts/latency
gguf=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/fixtures/SmolLM2-135M-Instruct.Q4_1.gguf
python3 scripts/vllm/lora.py "$work/ada"
export DYN_RUN_DIR=$work/run VLLM_CPU_KVCACHE_SPACE=1 VLLM_SERVER_DEV_MODE=1 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
serve=(--max-model-len 2048 --block-size 32 --enforce-eager --dtype float32 --enable-prompt-tokens-details --enable-scale-out)
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
server=http://127.0.0.1:$port
until_file() { for _ in $(seq 3000); do [ -s "$1" ] && return; sleep 0.2; done; echo "waited in vain for $1" >&2; return 1; }
instances() { # N: until the frontend knows so many workers
  for _ in $(seq 300); do
    [ "$(curl -fsS "$url/health" 2>/dev/null | grep -o '"instance_id"' | wc -l)" = "$1" ] && return
    sleep 0.2
  done
  echo "the frontend does not have $1 workers" >&2
  return 1
}

# A server as people run it, with its events on and an adapter. Two of its processes
# never rest while it computes; they share one core and dynamo has the other, so that
# what it adds is not the wait for a core.
VLLM_CPU_OMP_THREADS_BIND=0 setsid taskset -c 0 "$dir/venv/bin/vllm" serve "$dir/model" --host 127.0.0.1 --port "$port" --served-model-name smollm2 "${serve[@]}" \
  --enable-lora --max-lora-rank 8 --lora-modules "ada=$work/ada" \
  --kv-events-config "{\"enable_kv_cache_events\":true,\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:$((port + 1))\",\"replay_endpoint\":\"tcp://*:$((port + 2))\",\"topic\":\"kv-events\"}" >"$work/vllm.log" 2>&1 &
pids+=($!)
attached=$!
taskset -c 1 "$binary" frontend --http-port 0 --addr-file "$work/front" >"$work/frontend.log" 2>&1 &
pids+=($!)
for _ in $(seq 1200); do curl -fsS -o /dev/null "$server/health" 2>/dev/null && break; sleep 0.5; done
curl -fsS -o /dev/null "$server/health"
echo "ok: vLLM $(curl -fsS "$server/version" | python3 -c 'import json,sys; print(json.load(sys.stdin)["version"])') serves at $server"

"$binary" doctor "$dir/model" --engine-url "$server"
echo "ok: doctor"

if [ -n "$full" ]; then
  live=(-count=1 -timeout 2h -v -vllm-url "$server" -vllm-tokenizer "$dir/model/tokenizer.json")
  go test ./engine/vllm "${live[@]}" -run 'TestLive(Engine|Completions|Cancel|Events|Text|Adapters)$' >"$work/live.log" 2>&1
  grep -E '^(---|    live_test|ok)' "$work/live.log"
  echo "ok: the conformance suite on both routes, cancel, texts, probes"
fi

# What dynamo adds, measured before anything else runs: the worker speaks to a tap.
tap=127.0.0.1:$((port + 3))
url=http://$(cat "$work/front")
taskset -c 1 "$work/latency" -tap "$tap" -server "$server" -front "$url" -model tapped -n 40 -tokens 25 >"$work/latency.log" 2>&1 &
measured=$!
taskset -c 1 "$binary" worker "$dir/model" --model-name tapped --engine vllm --engine-url "http://$tap" --worker-id d --addr-file "$work/t" >"$work/worker-t.log" 2>&1 &
tapped=$!
pids+=("$tapped")
wait "$measured"
cat "$work/latency.log"
kill -TERM "$tapped"
wait "$tapped" || true

"$binary" worker "$dir/model" --model-name smollm2 --engine vllm --engine-url "$server" --weights-id smollm2-fp32 --worker-id a --addr-file "$work/a" >"$work/worker-a.log" 2>&1 &
pids+=($!)
until_file "$work/a"
for _ in $(seq 100); do curl -fsS -o /dev/null "$url/ready" 2>/dev/null && break; sleep 0.1; done
python3 scripts/vllm/check.py answers "$url" "$server"

# The reference's own command line, but for the name of the module.
VLLM_CPU_OMP_THREADS_BIND=1 "$binary" vllm --model "$dir/model" --served-model-name smollm2 --weights-id smollm2-fp32 --engine-command "$dir/venv/bin/vllm" --worker-id b --addr-file "$work/b" \
  --kv-events-config '{"enable_kv_cache_events":true,"publisher":"zmq"}' "${serve[@]}" >"$work/worker-b.log" 2>&1 &
pids+=($!)
second=$!
until_file "$work/b"
echo "ok: dynamo vllm started a server of its own"
instances 2
python3 scripts/vllm/check.py killed "$url" "$server" "$attached" "the other vLLM"
for _ in $(seq 50); do "$binary" status | grep -E '^0*a .* (down|failing)' >"$work/down" && break; sleep 0.2; done
[ -s "$work/down" ]
echo "ok: the worker of the dead server says so: $(tr -s ' ' <"$work/down")"

# The embedded engine takes over from the last vLLM, which comes back by itself.
"$binary" worker "$gguf" --model-name smollm2 --precision f32 --context-length 2048 --weights-id smollm2-fp32 --worker-id c --addr-file "$work/c" >"$work/worker-c.log" 2>&1 &
pids+=($!)
until_file "$work/c"
instances 3
child=$(pgrep -P "$second" -f 'vllm serve' | head -n 1)
own=http://127.0.0.1:$(tr '\0' '\n' <"/proc/$child/cmdline" | grep -A1 -x -e --port | tail -n 1)
python3 scripts/vllm/check.py killed "$url" "$own" "$child" "the embedded engine"
for _ in $(seq 600); do "$binary" status | grep -E '^0*b .* ready' >"$work/ready" && break; sleep 0.5; done
[ -s "$work/ready" ]
echo "ok: the killed server was started again: $(tr -s ' ' <"$work/ready")"
again=$(pgrep -P "$second" -f 'vllm serve' | head -n 1)
kill -9 "$second"
for _ in $(seq 50); do kill -0 -- "-$again" 2>/dev/null || break; sleep 0.2; done
! kill -0 -- "-$again" 2>/dev/null
echo "ok: kill -9 of a worker leaves no vLLM behind"

if [ -n "$full" ]; then
  go test ./engine/vllm -count=1 -timeout 2h -v -run TestLiveLedger -vllm-command "$dir/venv/bin/vllm" -vllm-model "$dir/model" -vllm-args "${serve[*]}" >"$work/ledger.log" 2>&1
  grep -E '^(---|    proof_test|ok)' "$work/ledger.log"
  echo "ok: what workers publish is what the replay socket tells, through evictions, resets and a restart; probes find cached what it predicts"
fi
