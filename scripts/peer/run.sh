#!/usr/bin/env bash
# KV that one worker holds, fetched by another instead of computed, with real tokens: two
# workers of the embedded engine and a frontend. Prompts are computed by the one and sent to
# the other by name; what it fetches comes from the first one's cache (G1), or from its host
# memory (G2) where the cache has lost it. Then the lender is stopped, killed and drained
# at random moments, and has lost what it is asked for: all answers must be those of a
# worker that computes. Prints a table of the time to first token from a peer against
# computing.
#   scripts/peer/run.sh
# PROMPTS (8), TOKENS (600, about) and FAULTS (12, of each sort) say how much, TRANSFER (auto)
# how KV moves. DYNAMO is a binary to use. SHORT=1 is a form for continuous integration,
# which does not judge times.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dynamo=${DYNAMO:-}
if [ -z "$dynamo" ]; then
  dynamo=$work/dynamo
  CGO_ENABLED=0 go build -o "$dynamo" ./cmd/dynamo
fi
export DYN_RUN_DIR=$work/run XDG_STATE_HOME=$work/state DYN_LOG=warn
"$dynamo" pull smollm2 >"$work/pull.log" 2>&1 || { cat "$work/pull.log"; exit 1; }
python3 scripts/peer/peer.py "$(realpath "$dynamo")" "$work"
