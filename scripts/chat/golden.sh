#!/usr/bin/env bash
# Makes chat/testdata/golden.json.bz2 and snippets.json.bz2 anew: every template
# in chat/testdata/templates rendered with every conversation of
# conversations.py, and every snippet of snippets.py, by transformers and jinja2.
#
# With --templates it first takes the published templates from the source
# package of llama-cpp-python (about 77 MB), which carries llama.cpp's collection.
cd "$(dirname "$0")"
. ./venv.sh
testdata=../../chat/testdata
if [ "${1:-}" = --templates ]; then
	version=0.3.36
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	"$PYTHON" -m pip install --quiet scikit-build-core
	"$PYTHON" -m pip download --quiet --no-binary :all: --no-deps --no-build-isolation --dest "$work" "llama-cpp-python==$version"
	tar -xzf "$work"/*.tar.gz -C "$work"
	cp "$work"/*/vendor/llama.cpp/models/templates/*.jinja "$testdata/templates/"
	chmod 644 "$testdata"/templates/*.jinja
fi
"$PYTHON" golden.py "$testdata/templates" "$testdata"
