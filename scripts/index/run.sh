#!/bin/sh
# run.sh [ROUNDS]: the prefix index beside the reference's indexers (crate dynamo-kv-router), on one workload in one run: checksums and digests are compared, then speed, memory and what is left of it.
# Builds the peer with cargo from the crate registry into the cache directory; without cargo or the registry only this index is measured. Rounds alternate and the best of each figure counts; with the 3 of the default it takes some minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/bench-index
mkdir -p "$cache"
(cd "$here/../.." && go build -o "$cache/dynamo" ./cmd/dynamo)
peer=
if ! command -v cargo >/dev/null; then
	echo "run.sh: no cargo here, so the peer is left out; install Rust to have it" >&2
elif (cd "$here/peer" && CARGO_TARGET_DIR="$cache/target" cargo build --quiet --release 2>"$cache/cargo.log"); then
	peer=$cache/target/release/index-peer
else
	echo "run.sh: the peer cannot be built (its crates are not to be had?), so it is left out; see $cache/cargo.log" >&2
fi
pin=
if command -v taskset >/dev/null; then
	pin="taskset -c 0"
fi
exec python3 "$here/table.py" --rounds "${1:-3}" --dynamo "$cache/dynamo" --peer "$peer" --pin "$pin" --records "$cache/results.jsonl"
