#!/usr/bin/env bash
# Renders the same conversations with jinja2 and with package chat, one after
# the other, and prints the times side by side. Only rendering is timed: both
# sides have compiled their template and parsed their conversation before.
cd "$(dirname "$0")"
. ./venv.sh
ours=$(mktemp)
trap 'rm -f "$ours"' EXIT
(cd ../.. && GOMAXPROCS=1 go test ./chat -run '^$' -bench '^BenchmarkRender$' -benchtime "${BENCHTIME:-0.3s}" -count 7) >"$ours"
"$PYTHON" bench.py ../../chat/testdata "$ours"
