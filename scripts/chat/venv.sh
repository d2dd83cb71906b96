# Sourced by the scripts here: a Python environment with transformers and
# jinja2 in the cache directory. $PYTHON is its interpreter. The versions are
# what pip finds newest unless REQUIREMENTS names others; what the scripts make
# records them.
set -euo pipefail
CHAT_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/dynamo/bench-chat
PYTHON=$CHAT_CACHE/venv/bin/python
if ! "$PYTHON" -c 'import transformers, jinja2' 2>/dev/null; then
	mkdir -p "$CHAT_CACHE"
	python3 -m venv "$CHAT_CACHE/venv"
	# shellcheck disable=SC2086 # a list of words
	"$PYTHON" -m pip install --quiet ${REQUIREMENTS:-transformers jinja2}
fi
export TRANSFORMERS_VERBOSITY=error PYTHONDONTWRITEBYTECODE=1
