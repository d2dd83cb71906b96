#!/usr/bin/env bash
# Tests the path ucx of package transfer against libucp: vet and tests with the build
# tag dl, over the library's tcp transport and over its shared memory. Two minutes at
# most; it fails if anything does.
#   scripts/transfer/ucx.sh
# Where the library is not installed, Debian's libucx0 with the libraries that it wants
# goes into dynamo/ucx in the user's cache (apt-get download, no root). Where that cannot
# be had it fails; with UCX_OPTIONAL=1 it says so and ends well.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CGO_ENABLED=0

loads() { timeout 60 "$work/transfer.test" -test.run '^TestUCX$/^wrong_lists$' -test.v >"$work/loads" 2>&1 && ! grep -q '^--- SKIP' "$work/loads"; }

timeout 280 go vet -tags dl ./transfer
timeout 280 go test -tags dl -c -o "$work/transfer.test" ./transfer
if ! loads; then
  root=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/ucx
  mkdir -p "$root"
  lib=$root/usr/lib/$(uname -m)-linux-gnu
  export LD_LIBRARY_PATH=$lib:$root/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  if [ ! -e "$lib/libucp.so.0" ]; then
    (cd "$work" && timeout 60 apt-get download libucx0 libibverbs1 librdmacm1 libnuma1 libnl-3-200 libnl-route-3-200 && for d in *.deb; do dpkg -x "$d" "$root"; done) >&2 || true
  fi
  if ! loads; then
    cat "$work/loads" >&2
    if [ -n "${UCX_OPTIONAL:-}" ]; then
      echo "libucp cannot be had or does not work here: the path ucx was NOT tested (UCX_OPTIONAL is set)"
      exit 0
    fi
    echo "libucp cannot be had or does not work here: install libucx0, or set UCX_OPTIONAL=1 to go on without" >&2
    exit 1
  fi
fi

# In a process of its own for each transport, because the library reads its settings once.
cd transfer
for transports in tcp posix,sysv; do
  echo "== UCX_TLS=$transports"
  if ! UCX_TLS=$transports UCX_MM_ERROR_HANDLING=y timeout 60 "$work/transfer.test" -test.run '^TestUCX' -test.timeout 55s -test.v >"$work/out" 2>&1; then
    cat "$work/out" >&2
    exit 1
  fi
  grep -E '^(---|    ---|PASS)|told after' "$work/out" | cut -c1-150
done
echo "the path ucx conforms"
