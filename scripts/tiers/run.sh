#!/usr/bin/env bash
# A tour of the KV tiers with real tokens: the embedded engine as one worker whose cache
# has room for one prompt. The cache (G1) is filled, and from there host memory (G2),
# disk (G3) and a remote store (G4); the worker is started again, and prompts are answered
# from each tier in turn; then from the KV daemon of the host, which is killed on the
# way. Bytes are flipped, blocks swapped and files cut in every tier: all of it has to be
# found, and answers must not change. Prints a table of the time to first token from each
# tier against computing, and one of the damage.
#   scripts/tiers/run.sh
# PROMPTS (6), TOKENS (600, about) and ROUNDS (3) say how much. REMOTE is the remote
# store, as --kvbm-remote takes it; default an object store of the tour's own, in memory,
# which asks for credentials and lies when it is told to.
# DYNAMO is a binary to use. SHORT=1 is a form for continuous integration, which does not
# judge times.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dynamo=${DYNAMO:-}
if [ -z "$dynamo" ]; then
  dynamo=$work/dynamo
  CGO_ENABLED=0 go build -o "$dynamo" ./cmd/dynamo
fi
CGO_ENABLED=0 go build -o "$work/objects" ./scripts/tiers
export DYN_RUN_DIR=$work/run XDG_STATE_HOME=$work/state DYN_LOG=warn
"$dynamo" pull smollm2 >"$work/pull.log" 2>&1 || { cat "$work/pull.log"; exit 1; }
python3 scripts/tiers/tour.py "$(realpath "$dynamo")" "$work"
