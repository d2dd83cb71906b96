#!/usr/bin/env bash
# Measures package transfer beside NIXL, Mooncake and what the machine does by itself, in
# one run, and prints a table; takes about three minutes on two cores.
#   scripts/transfer/run.sh [OUT]      OUT: a file for every sample, as JSON lines
# The first time it installs the wheels of NIXL and Mooncake (150 MB) and, by apt-get, the
# libraries of libibverbs that Mooncake wants, into dynamo/transfer-peers in the user's
# cache; what cannot be had is left out. DIR is where the file that is measured lies
# (default: a new one in the repository's dist, because /tmp may be memory). ROUNDS (15)
# says how often. SHORT=1 leaves the peers out, moves less and takes half a minute: it
# shows that everything works, and judges no times.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:+$(realpath -m "$1")}
work=$(mktemp -d)
mkdir -p "${DIR:-dist}"
files=$(mktemp -d "${DIR:-dist}/transfer.XXXXXX")
trap 'rm -rf "$work" "$files"' EXIT
CGO_ENABLED=0 go build -o "$work/transfer" ./scripts/transfer
args=(-dir "$work" -files "$files" -out "$out")
if [ -n "${SHORT:-}" ]; then
  exec_args=(-short -rounds 2 -region $((64 << 20)))
else
  exec_args=(-rounds "${ROUNDS:-15}")
  peers=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/transfer-peers
  python=$peers/venv/bin/python
  mkdir -p "$peers"
  if [ ! -x "$python" ]; then
    python3 -m venv "$peers/venv"
  fi
  pip=("$python" -m pip install --quiet --disable-pip-version-check --no-deps)
  args+=(-python "$python")
  # the wheel declares torch, which it does not need
  if [ -f "$peers/nixl" ] || { "${pip[@]}" numpy nixl==1.5.1 nixl-cu13==1.5.1 && touch "$peers/nixl"; }; then
    args+=(-nixl scripts/transfer/peer_nixl.py)
  fi
  if [ ! -f "$peers/mooncake" ] && "${pip[@]}" numpy mooncake-transfer-engine-non-cuda==0.3.13.post1; then
    (cd "$work" && apt-get download libibverbs1 libnl-3-200 libnl-route-3-200 && for d in *.deb; do dpkg -x "$d" "$peers/root"; done) >&2 || true
    touch "$peers/mooncake"
  fi
  lib=$(uname -m)-linux-gnu
  export LD_LIBRARY_PATH=$peers/root/usr/lib/$lib:$peers/root/lib/$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  if [ -f "$peers/mooncake" ] && "$python" -c 'import mooncake.engine' 2>/dev/null; then
    args+=(-mooncake scripts/transfer/peer_mooncake.py)
  fi
fi
"$work/transfer" "${args[@]}" "${exec_args[@]}"
