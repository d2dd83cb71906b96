#!/usr/bin/env bash
# Measures this project and its peers side by side, in one run on one machine,
# and prints both sides. It installs the peers itself (Python 3 with pip and
# venv; llama-cpp-python compiles for about ten minutes) into the user cache.
# The load comes from `dynamo bench`, on a core that no measured server has.
#   scripts/figures/run.sh [PART…]     default: all
# binary tokenizer chat engine serve frontend proxy cluster instep: see each below.
# scenarios: the frontend before mock workers against the reference's before its own
#   (ROUNDS, default 3; less than two minutes a round; ROUTER_MODE=kv routes by
#   prefixes on both sides, round-robin is the default).
# bench: what the load generator costs, how exact it is, and 1,000 mock workers.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
peers=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/peers
mkdir -p "$peers"
work=$(mktemp -d)
started=()
stop() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
  started=()
}
trap 'stop; rm -rf "$work"' EXIT

mode=${ROUTER_MODE:-round-robin}
parts=("$@")
[ $# -gt 0 ] || parts=(binary tokenizer chat engine serve frontend proxy cluster instep scenarios bench)
echo "machine: $(nproc) x $(awk -F': ' '/model name/{print $2; exit}' /proc/cpuinfo), $(date -u +%F), commit $(git rev-parse --short HEAD 2>/dev/null || echo none)"
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/dynamo" ./cmd/dynamo
CGO_ENABLED=0 go build -o "$work/load" ./scripts/load
dynamo=$work/dynamo
# load URL MODEL CONNECTIONS REQUESTS WARMUP WORDS TOKENS PIDS [FLAG…]: streams chats
# in a closed loop; one line of figures. PIDS is name=pid,name=pid.
pin=()
load_on_1() { local pin=(taskset -c 1); load "$@"; } # the same, on cpu 1
load() {
  local url=$1 name=$2 c=$3 n=$4 warm=$5 words=$6 tokens=$7 pids=$8
  shift 8
  "${pin[@]}" "$dynamo" bench run --url "$url" -m "$name" -c "$c" -n "$n" --warmup-requests "$warm" --input-tokens "$words" --output-tokens "$tokens" \
    --seed "$RANDOM" --timeout 30s --quiet --json --pid "${pids//,/;}" "$@" | python3 scripts/figures/line.py
}
model() { go test -count=1 -run TestSmolLM2 ./internal/fixture >/dev/null && echo "${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/fixtures/SmolLM2-135M-Instruct.Q4_1.gguf"; }

# venv NAME PACKAGE…: a virtual environment with the packages, made once.
venv() {
  local dir=$peers/$1
  shift
  [ -x "$dir/bin/python" ] || python3 -m venv "$dir"
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
  echo "$dir/bin/python"
}
rss() { awk '/VmRSS/{print $2}' "/proc/$1/status"; } # PID: KiB
wait_for() { # URL
  for _ in $(seq 600); do
    curl -fsS -o /dev/null "$1" 2>/dev/null && return
    sleep 0.1
  done
  echo "no answer from $1" >&2
  return 1
}

part_binary() {
  echo "== binary, stripped, linux/amd64: $(($(stat -c %s "$dynamo") / 1000)) kB"
}

part_tokenizer() { echo "== tokenizer"; scripts/tokenizer/bench.sh; }

part_chat() { echo "== chat template render"; scripts/chat/bench.sh; }

part_engine() {
  echo "== embedded engine, SmolLM2-135M Q4_1, tokens/s (peer: llama.cpp in llama-cpp-python 0.3.36, better of flash attention on and off)"
  local python gguf
  # named instruction sets instead of a native build, which dies of an illegal instruction on some virtual machines (AMX is the suspect)
  export CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
  local set
  for set in avx512f:AVX512 avx512_vnni:AVX512_VNNI avx512vbmi:AVX512_VBMI avx512_bf16:AVX512_BF16; do
    ! grep -qw "${set%:*}" /proc/cpuinfo || CMAKE_ARGS+=" -DGGML_${set#*:}=ON"
  done
  python=$(venv llama llama-cpp-python==0.3.36 numpy)
  gguf=$(model)
  # ours, theirs, ours: drift of a shared machine shows as a difference between the first and the last row
  go test -c -o "$work/model.test" ./engine/native/model
  ours() { (cd engine/native/model && "$work/model.test" -test.run '^$' -test.bench 'Prefill|Decode' -test.benchtime 2s) | tee "$1" | grep -E 'tok/s' >&2; }
  ours "$work/ours1"
  "$python" scripts/figures/llama.py "$gguf" | tee "$work/theirs" >&2
  ours "$work/ours2"
  python3 scripts/figures/ratio.py "$work/theirs" "$work/ours1" "$work/ours2"
}

part_serve() {
  echo "== serve: start to ready and memory"
  local gguf pool
  gguf=$(model)
  cat "$gguf" >/dev/null
  for _ in 1 2 3; do
    local begin=$EPOCHREALTIME addr=$work/addr-serve
    rm -f "$addr"
    "$dynamo" serve "$gguf" --http-port 0 --addr-file "$addr" --kv-cache-bytes 256MiB >"$work/serve.log" 2>&1 &
    started=($!)
    until [ -s "$addr" ]; do sleep 0.005; done
    echo "ready after $(python3 -c "print(round($EPOCHREALTIME-$begin,3))") s, resident $(awk '/VmRSS/{print $2/1024}' "/proc/${started[0]}/status") MiB at ready"
    curl -fsS -o /dev/null "http://$(cat "$addr")/v1/chat/completions" -d '{"model":"'"$(curl -fsS "http://$(cat "$addr")/v1/models" | python3 -c 'import json,sys;print(json.load(sys.stdin)["data"][0]["id"])')"'","max_tokens":64,"messages":[{"role":"user","content":"hello"}]}'
    echo "  after one chat: resident $(awk '/VmRSS/{print $2/1024}' "/proc/${started[0]}/status") MiB, of it about 2.3 MiB KV"
    stop
  done
}

# peer_dynamo: the reference system's Python, installed once.
peer_dynamo() {
  local python
  python=$(venv dynamo-1.6.1 ai-dynamo-runtime==1.6.1)
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps ai-dynamo==1.6.1 >&2
  # its own requirements, less what no index carries
  "$python" - <<'PY' >"$work/requirements"
import importlib.metadata as m
for r in m.requires("ai-dynamo") or []:
    if "extra ==" not in r and not r.startswith(("aisimulate", "ai-dynamo-runtime")):
        print("certifi" if r.startswith("certifi") else r)
PY
  "$python" -m pip install --quiet --disable-pip-version-check -r "$work/requirements" >&2
  echo "$python"
}

# peer_model GGUF: the model as the reference system's processes read it.
peer_model() { [ -d "$work/hf" ] || "$(venv gguf gguf safetensors numpy)" scripts/gguf_to_hf.py "$1" "$work/hf" >&2; }

# peer_exec COMMAND…: becomes a process of the reference system.
peer_exec() {
  mkdir -p "$work/kv"
  exec env DYN_FILE_KV="$work/kv" DYN_LOG=error HF_HUB_OFFLINE=1 DYN_DISCOVERY_BACKEND=file DYN_REQUEST_PLANE=tcp DYN_EVENT_PLANE=zmq "$@"
}

# peer_up PORT SPEEDUP: its mockers on cpu 1 and its frontend on cpu 0, until the
# frontend lists the model; their ids go into front and back.
peer_up() {
  rm -rf "$work/kv"
  peer_exec taskset -c 1 "$python" -m dynamo.mocker --model-path "$work/hf" --model-name smol --speedup-ratio "$2" --num-workers 2 >"$work/mocker.log" 2>&1 &
  back=$!
  started+=("$back")
  sleep 4
  peer_exec taskset -c 0 "$python" -m dynamo.frontend --http-host 127.0.0.1 --http-port "$1" --router-mode "$mode" >"$work/frontend.log" 2>&1 &
  front=$!
  started+=("$front")
  for _ in $(seq 300); do curl -fsS "http://127.0.0.1:$1/v1/models" 2>/dev/null | grep -q smol && return; sleep 0.1; done
  echo "the reference's frontend does not list the model" >&2
  return 1
}

# own_up PORT SPEEDUP LOG: the same of ours.
own_up() {
  rm -rf "$work/run-own"
  DYN_RUN_DIR=$work/run-own taskset -c 1 "$dynamo" mocker --model-path "$gguf" --model-name smol --speedup-ratio "$2" --num-workers 2 --log error >"$work/own-mocker.log" 2>&1 &
  back=$!
  started+=("$back")
  DYN_RUN_DIR=$work/run-own taskset -c 0 "$dynamo" frontend --http-port "$1" --router-mode "$mode" --log "$3" >"$work/own-frontend.log" 2>&1 &
  front=$!
  started+=("$front")
  for _ in $(seq 300); do
    [ "$(curl -fsS "http://127.0.0.1:$1/health" 2>/dev/null | grep -o '"instance_id"' | wc -l)" != 2 ] || return 0
    sleep 0.1
  done
  echo "the frontend does not have two workers" >&2
  return 1
}

part_instep() {
  echo "== 64 streams in step, 1,000 tokens each: CPU-seconds per 1k requests are CPU-seconds per 1M tokens (three passes of each, in turn)"
  local gguf python round front back
  gguf=$(model)
  python=$(peer_dynamo)
  peer_model "$gguf"
  for round in 1 2 3; do
    (
      export DYN_RUN_DIR=$work/run-$round
      mkdir -p "$DYN_RUN_DIR"
      "$dynamo" frontend --http-port 18110 --log error >"$work/instep.log" 2>&1 &
      front=$!
      "$dynamo" worker "$gguf" --model-name smollm2 --engine echo --echo-itl 10ms --log error >>"$work/instep.log" 2>&1 &
      back=$!
      trap 'kill $front $back; wait' EXIT
      wait_for http://127.0.0.1:18110/ready
      load http://127.0.0.1:18110 smollm2 64 64 64 32 1000 "ours-frontend=$front,ours-worker=$back"
    )
    (
      rm -rf "$work/kv"
      peer_exec "$python" -m dynamo.mocker --model-path "$work/hf" --model-name smol --speedup-ratio 0.6 --num-workers 1 >"$work/mocker.log" 2>&1 &
      back=$!
      sleep 4
      peer_exec "$python" -m dynamo.frontend --http-host 127.0.0.1 --http-port 18112 --router-mode round-robin >"$work/frontend.log" 2>&1 &
      front=$!
      trap 'kill $front $back; wait' EXIT
      for _ in $(seq 300); do curl -fsS http://127.0.0.1:18112/v1/models 2>/dev/null | grep -q smol && break; sleep 0.1; done
      load http://127.0.0.1:18112 smol 64 64 64 32 1000 "dynamo-1.6.1-frontend=$front,its-mocker=$back"
    )
  done
  echo "   (the floor on this machine: a goroutine a stream that wakes every 10 ms and writes 240 bytes to its own TCP connection)"
  "$work/load" -floor
}

part_cluster() {
  echo "== request plane: 1,000 streams x 200 messages of 64 B, both ends in this process, gRPC-Go beside it (three passes)"
  go test -run '^$' -bench 'Streams|GRPC|PingPong' -count 3 ./plane/rpc | grep -E '^Benchmark'
  echo "== first token of a remote engine against a local one, one request at a time"
  go test -run '^$' -bench FirstToken -count 3 ./plane/remote | grep -E '^Benchmark'
  echo "== processes on loopback, echo engine"
  go run ./scripts/cluster -bin "$dynamo" -bench
}

# front NAME URL PID MODEL: the short streamed chat, at 64 connections and at one.
front() {
  for _ in 1 2 3; do load_on_1 "$2" "$4" 64 8000 500 32 16 "$1=$3"; done
  load_on_1 "$2" "$4" 1 400 50 32 16 "$1=$3"
}

part_frontend() {
  echo "== frontend alone: 32-word prompts, 16 tokens, streamed; server on cpu 0, client on cpu 1"
  local gguf fe
  gguf=$(model)
  GOMAXPROCS=1 taskset -c 0 "$dynamo" serve "$gguf" --model-name smollm2 --engine echo --http-port 18100 --max-running 512 --max-queue 1024 --log error >"$work/echo.log" 2>&1 &
  fe=$!
  started=("$fe")
  wait_for http://127.0.0.1:18100/ready
  echo "- dynamo serve --engine echo (tokenizes, generates)"
  front ours http://127.0.0.1:18100 "$fe" smollm2
  local python
  python=$(venv router vllm-router==0.1.17)
  taskset -c 0 "$(dirname "$python")/vllm-router" --worker-urls http://127.0.0.1:18100 --policy round_robin --host 127.0.0.1 --port 18101 >"$work/router.log" 2>&1 &
  started+=($!)
  wait_for http://127.0.0.1:18101/health
  echo "- vllm-router 0.1.17 round_robin before it (a proxy: does not tokenize; its latency includes ours)"
  front vllm-router http://127.0.0.1:18101 "${started[-1]}" smollm2
  stop
  local front back
  python=$(peer_dynamo)
  peer_model "$gguf"
  peer_up 18102 1000000
  echo "- Dynamo 1.6.1 frontend, round-robin, two mockers in another process (tokenizes)"
  front dynamo-1.6.1 http://127.0.0.1:18102 "$front" smol
  stop
}

# proxied NAME URL PIDS: short streams, and long ones of long prompts.
proxied() {
  load_on_1 "$2" smollm2 32 4000 500 32 16 "$3" | sed "s/^/$1; 32 words, 16 tokens: /"
  load_on_1 "$2" smollm2 32 1000 100 1000 256 "$3" | sed "s/^/$1; 1000 words, 256 tokens (times 3.9 is a million tokens): /"
}

part_proxy() {
  echo "== as a proxy before two servers of canned answers, each event a write of its own; proxies on cpu 0, servers and client on cpu 1 (five rounds, in turn)"
  local gguf python router own front backs=() url
  gguf=$(model)
  taskset -c 1 "$work/load" -canned 127.0.0.1:18121,127.0.0.1:18122 -model smollm2 &
  started=($!)
  wait_for http://127.0.0.1:18122/v1/models
  taskset -c 0 "$dynamo" serve "$gguf" --model-name smollm2 --engine openai --engine-url http://127.0.0.1:18121 --engine-url http://127.0.0.1:18122 --http-port 18123 --log error >"$work/proxy.log" 2>&1 &
  own=$!
  export DYN_RUN_DIR=$work/run-proxy
  mkdir -p "$DYN_RUN_DIR"
  taskset -c 0 "$dynamo" frontend --http-port 18124 --log error >"$work/proxy-frontend.log" 2>&1 &
  front=$!
  for url in http://127.0.0.1:18121 http://127.0.0.1:18122; do
    taskset -c 0 "$dynamo" worker "$gguf" --model-name smollm2 --engine openai --engine-url "$url" --log error >>"$work/proxy-workers.log" 2>&1 &
    backs+=($!)
  done
  python=$(venv router vllm-router==0.1.17)
  taskset -c 0 "$(dirname "$python")/vllm-router" --worker-urls http://127.0.0.1:18121 http://127.0.0.1:18122 --policy round_robin --host 127.0.0.1 --port 18125 >"$work/router.log" 2>&1 &
  router=$!
  started+=("$own" "$front" "${backs[@]}" "$router")
  for url in http://127.0.0.1:18123/ready http://127.0.0.1:18124/ready http://127.0.0.1:18125/health; do wait_for "$url"; done
  for _ in 1 2 3 4 5; do
    proxied "dynamo serve" http://127.0.0.1:18123 "ours=$own"
    proxied "dynamo frontend and two workers" http://127.0.0.1:18124 "frontend=$front,worker=${backs[0]},other-worker=${backs[1]}"
    proxied "vllm-router 0.1.17 round_robin, which does not tokenize" http://127.0.0.1:18125 "vllm-router=$router"
  done | python3 scripts/figures/proxy.py
  stop
  unset DYN_RUN_DIR
}

# scenario SIDE NAME ROUND URL [FLAG…]: one run of a scenario against the frontend
# whose id is in front; its figures go into scenarios/ and, as a line, to the output.
scenario() {
  local side=$1 name=$2 round=$3 url=$4
  shift 4
  printf '%s %s: ' "$side" "$name"
  # a seed of its own for each scenario and round, the same on both sides: no prompt is one that the workers have had
  taskset -c 1 "$dynamo" bench run --url "$url" -m smol --seed "$(cksum <<<"$name $round" | cut -d' ' -f1)" --timeout 60s --quiet --json --pid "frontend=$front" "$@" |
    python3 scripts/figures/line.py "$work/scenarios/$side-$name-$round.json" || true # the table tells
}

# 30 tokens of every prompt are the chat template's.
short=(--input-tokens 39 --output-tokens 16)

# scenarios SIDE ROUND URL: those of workers that answer at once.
scenarios() {
  local side=$1 round=$2 url=$3
  sleep 2
  echo "$side idle $(rss "$front")" >>"$work/scenarios/memory"
  scenario "$side" one "$round" "$url" "${short[@]}" -c 1 -n 60 --warmup-requests 10
  scenario "$side" ack "$round" "$url" "${short[@]}" -c 1 -n 200 --quickack
  scenario "$side" a "$round" "$url" "${short[@]}" -c 64 -d 4s --warmup-requests 200
  scenario "$side" b "$round" "$url" --input-tokens 1006 --output-tokens 256 -c 32 -d 4s --warmup-requests 64
  scenario "$side" c "$round" "$url" --input-tokens 7506 --output-tokens 16 -c 16 -d 4s --warmup-requests 32
  scenario "$side" d "$round" "$url" "${short[@]}" -c 64 -d 4s --warmup-requests 200 --unary
  echo "$side loaded $(rss "$front")" >>"$work/scenarios/memory"
}

part_scenarios() {
  local gguf python front back round paced=("${short[@]}" -c 32 -d 5s --warmup-requests 64)
  echo "== a frontend on cpu 0, two mock workers and the client on cpu 1, $mode, ${ROUNDS:-3} rounds in turn"
  echo "   (the reference writes a log line a request at any level; ours writes two here, --log error,frontend=debug)"
  gguf=$(model)
  python=$(peer_dynamo)
  peer_model "$gguf"
  mkdir -p "$work/scenarios"
  for round in $(seq "${ROUNDS:-3}"); do
    own_up 18130 0 error,frontend=debug
    scenarios ours "$round" http://127.0.0.1:18130
    stop
    peer_up 18131 1000000 # 0 leaves its delays in
    scenarios theirs "$round" http://127.0.0.1:18131
    stop
    # both compute the time of a step with one polynomial, which makes about 6 ms
    own_up 18130 1 error,frontend=debug
    scenario ours e "$round" http://127.0.0.1:18130 "${paced[@]}"
    stop
    peer_up 18131 1
    scenario theirs e "$round" http://127.0.0.1:18131 "${paced[@]}"
    stop
    own_up 18130 0 error
    scenario ours aquiet "$round" http://127.0.0.1:18130 "${short[@]}" -c 64 -d 4s --warmup-requests 200
    stop
    own_up 18130 1 error
    scenario ours equiet "$round" http://127.0.0.1:18130 "${paced[@]}"
    stop
  done
  python3 scripts/figures/scenarios.py "$work/scenarios"
}

# canned FLAG…: a server of canned answers on cpu 0; what it prints goes to canned.txt.
canned() {
  taskset -c 0 "$work/load" -canned 127.0.0.1:18140 -model smollm2 "$@" >"$work/canned.txt" &
  started=($!)
  wait_for http://127.0.0.1:18140/v1/models
}

part_bench() {
  local measure=(taskset -c 1 "$dynamo" bench run --url http://127.0.0.1:18140 -m smollm2 --input-tokens 32 --output-tokens 256 --quiet --json)
  echo "== the load generator on cpu 1 against canned answers from cpu 0: 215 streams at delays that the server draws (before the first token 50 to 150 ms, between two 5 to 15 ms): 20,000 chunks/s less its begin and end"
  canned -first 100ms -pace 10ms
  "${measure[@]}" -c 215 --ramp-up 1s -n 1505 >"$work/paced.json"
  stop
  python3 scripts/figures/client.py "$work/paced.json" "$work/canned.txt"
  local how words
  for how in "" -burst; do
    words="each event a write of its own"
    [ -z "$how" ] || words="whole answers in a write"
    echo "== flat out, $words (three passes)"
    canned $how
    for _ in 1 2 3; do
      "${measure[@]}" -c 16 -d 4s --warmup-requests 64 >"$work/flat.json"
      python3 scripts/figures/client.py "$work/flat.json"
    done
    stop
  done
  echo "== 1,000 mock workers in a process, 8 requests each, in real time: 100,000 tokens/s"
  CGO_ENABLED=0 go build -o "$work/crowd" ./scripts/crowd
  "$work/crowd" -dynamo "$dynamo" -model "$(model)" -time 20s
}

for part in "${parts[@]}"; do "part_$part"; cd "$root"; done
