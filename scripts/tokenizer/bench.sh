#!/bin/sh
# bench.sh [VOCABULARY …]: the speed of this tokenizer beside Hugging Face tokenizers, gigatoken and fastokens, in one run on one core.
# Makes the corpora, installs the peers into a virtual environment in the cache directory, prints tables. Takes some minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/bench-tokenizer
corpora=$cache/corpora
mkdir -p "$cache"
if [ ! -x "$cache/venv/bin/python" ]; then
	python3 -m venv "$cache/venv"
fi
"$cache/venv/bin/pip" install --quiet tokenizers==0.23.3 gigatoken==0.10.0 fastokens==0.3.5
"$cache/venv/bin/python" "$here/corpora.py" "$corpora"
names=${*:-qwen3 llama3_1 smollm2}
pin=
if command -v taskset >/dev/null; then
	pin="taskset -c 0"
fi
(cd "$here/../.." && go test -c -o "$cache/tokenizer.test" ./tokenizer)
# shellcheck disable=SC2086 # names and pin are lists of words
RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $pin "$cache/venv/bin/python" "$here/peers.py" "$corpora" $names >"$cache/peers.jsonl"
# shellcheck disable=SC2086
(cd "$here/../../tokenizer" && GOMAXPROCS=1 $pin "$cache/tokenizer.test" -test.run '^TestSpeed$' -corpora "$corpora" -vocabularies "$(echo $names | tr ' ' ,)") >"$cache/dynamo.jsonl"
"$cache/venv/bin/python" "$here/table.py" "$cache/peers.jsonl" "$cache/dynamo.jsonl"
