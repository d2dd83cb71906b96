#!/usr/bin/env bash
# Answers of prefill and decode workers against those of one worker, by shared memory and
# by tcp, while workers of both parts are killed and drained. SHORT=1 asks fewer requests.
# DYNAMO names a binary; without it one is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${DYNAMO:-}
n=500 every=2500ms faults=kill,drain,stop
[ -z "${SHORT:-}" ] || { n=100; every=1200ms; faults=kill,drain; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "$bin" ]; then
  bin=$work/dynamo
  go build -o "$bin" ./cmd/dynamo
fi
go build -o "$work/disagg" ./scripts/disagg
"$work/disagg" -bin "$bin" -n "$n" -every "$every" -faults "$faults" -prefill 2 -decode 2
"$work/disagg" -bin "$bin" -n "$n" -every "$every" -faults "$faults" -prefill 1 -decode 2 -transfer tcp -seed 2
