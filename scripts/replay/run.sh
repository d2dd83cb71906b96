#!/usr/bin/env bash
# Ways of routing compared on simulated fleets: three shapes of trace (chats under
# system prompts, agents, questions about long documents) on equal workers and on a
# fleet of two kinds of machines. Each is played at the load where round-robin
# saturates, or LOADS times that, as SEEDS different traces; ratios to the first mode
# come with 95 % intervals over the seeds, reports and plots of the first seed go to OUTPUT.
#   scripts/replay/run.sh [OUTPUT]      default: ./replay-report
# MODES (kv,round-robin,dynamo,sticky,lmetric,least-loaded), SEEDS (3), REQUESTS (5000) of
# each trace, LOADS ("1"; "0.6 1 1.3" is three), and DYNAMO, a binary to use. SHORT=1 is a
# form for continuous integration.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-replay-report}
modes=${MODES:-kv,round-robin,dynamo,sticky,lmetric,least-loaded} seeds=${SEEDS:-3} requests=${REQUESTS:-5000} loads=${LOADS:-1}
if [ -n "${SHORT:-}" ]; then modes=round-robin,kv seeds=2 requests=600; fi
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dynamo=${DYNAMO:-}
if [ -z "$dynamo" ]; then
  dynamo=$work/dynamo
  CGO_ENABLED=0 go build -o "$dynamo" ./cmd/dynamo
fi

synth() { # SHAPE RATE SEED FILE
  local flags=()
  case $1 in
  chat) flags=(--preset mooncake-conversation --arrival poisson --block-size 64 --system 200 --share 1 --roots 40 --depth 1 --branching 1 --zipf 1 --node-tokens 1500
    --turns 5 --max-turns 20 --first-tokens 300 --follow-tokens 150 --output-tokens 180 --gap 8) ;;
  agents) flags=(--preset agents) ;;
  documents) flags=(--preset documents --block-size 64 --zipf 0.8) ;;
  esac
  "$dynamo" trace synth "${flags[@]}" --rate "$2" --requests "$requests" --seed "$3" -o "$4"
}

# takes prints how long round-robin's requests take at p50, in ms.
takes() { # SHAPE RATE FLEET
  synth "$1" "$2" 1 "$work/probe.jsonl"
  "$dynamo" replay "$work/probe.jsonl" --fleet "$3" --router-mode round-robin --json | sed -n 's/.*"e2e_p50": \([0-9.e+]*\).*/\1/p'
}

# saturation prints the rate in requests a second at which that is two and a half times
# what it is on an idle fleet.
saturation() { # SHAPE FLEET
  local low=0.2 high=400 middle idle
  idle=$(takes "$1" 0.2 "$2")
  for _ in 1 2 3 4 5 6 7 8 9; do
    middle=$(awk -v a="$low" -v b="$high" 'BEGIN { printf "%.3f", sqrt(a * b) }')
    if awk -v x="$(takes "$1" "$middle" "$2")" -v idle="$idle" 'BEGIN { exit !(x > 2.5 * idle) }'; then high=$middle; else low=$middle; fi
  done
  echo "$low"
}

play() { # NAME SHAPE FLEET
  local shape=$2 fleet=$3 most rate load name traces
  most=$(saturation "$shape" "$fleet")
  for load in $loads; do
    name=$1 traces=()
    if [ "$loads" != 1 ]; then name=$1-$load; fi
    rate=$(awk -v a="$most" -v b="$load" 'BEGIN { printf "%.3f", a * b }')
    for seed in $(seq "$seeds"); do
      synth "$shape" "$rate" "$seed" "$work/$name.$seed.jsonl"
      traces+=("$work/$name.$seed.jsonl")
    done
    echo
    echo "== $name on $fleet, $rate requests a second"
    "$dynamo" replay "${traces[@]}" --fleet "$fleet" --router-mode "$modes" --ttft 2s --itl 50ms --output "$out/$name" >"$out/$name.txt"
    sed '/^$/,$d' "$out/$name.txt" # the table; the rest is in the file
    rm -f "${traces[@]}"
  done
}

play chat chat h200-8b:8
play agents agents h200-8b:8
play documents documents h200-8b:8
play unequal chat h200-8b:4,h100-8b:4
if [ -z "${SHORT:-}" ]; then
  play unequal-agents agents h200-8b:4,h100-8b:4
  play unequal-documents documents h200-8b:4,h100-8b:4
fi
echo
echo "reports: $out/*/compare.html"
