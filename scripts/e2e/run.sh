#!/usr/bin/env bash
# Serves the default model and asks it as users do: curl (unary, streaming,
# errors) and the official openai Python client. Then stops it with SIGTERM.
#   scripts/e2e/run.sh [BINARY]      without BINARY: builds one
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
fail() { echo "FAIL: $*"; echo "-- server log"; tail -n 30 "$work/log"; exit 1; }

binary=${1:-}
if [ -z "$binary" ]; then
  binary=$work/dynamo
  CGO_ENABLED=0 go build -o "$binary" ./cmd/dynamo
fi

"$binary" serve --http-port 0 --addr-file "$work/addr" >"$work/log" 2>&1 &
server=$!
for _ in $(seq 1200); do
  [ -s "$work/addr" ] && break
  kill -0 "$server" 2>/dev/null || fail "serve ended before it was ready"
  sleep 0.1
done
[ -s "$work/addr" ] || fail "serve was not ready within two minutes"
url=http://$(cat "$work/addr")
echo "serving at $url"

body='{"model":"smollm2","temperature":0,"max_tokens":24,"messages":[{"role":"user","content":"What is the capital of Germany?"}]}'
answer=$(curl -fsS "$url/v1/chat/completions" -H 'Content-Type: application/json' -d "$body")
grep -q Berlin <<<"$answer" || fail "the answer does not name Berlin: $answer"

stream=$(curl -fsSN "$url/v1/chat/completions" -H 'Content-Type: application/json' -d "${body/\{/\{\"stream\":true,}")
[ "$(grep -c '^data: {' <<<"$stream")" -ge 6 ] || fail "too few events: $stream"
[ "$(grep '^data: ' <<<"$stream" | tail -n 1)" = "data: [DONE]" ] || fail "the stream does not end with [DONE]"

code=$(curl -sS -o "$work/body" -w '%{http_code}' "$url/v1/chat/completions" -H 'Content-Type: application/json' -d '{"model":"nobody","messages":[{"role":"user","content":"hi"}]}')
[ "$code" = 404 ] && grep -q model_not_found "$work/body" || fail "unknown model: $code $(cat "$work/body")"
curl -fsS "$url/metrics" >"$work/metrics" # whole: grep ends at its first match, and curl would fail
grep -q '^dynamo_frontend_requests_total{' "$work/metrics" || fail "no request counter in /metrics"
for path in health live ready version v1/models v1/models/smollm2; do
  curl -fsS "$url/$path" >/dev/null || fail "GET /$path"
done
echo "ok: curl"

python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'openai>=2,<3'
"$work/venv/bin/python" scripts/e2e/client.py "$url/v1" || fail "openai client"
echo "ok: openai client"

# A client that goes away stops its generation, and SIGTERM ends the server cleanly.
curl -sSN --max-time 1 "$url/v1/chat/completions" -H 'Content-Type: application/json' -o /dev/null \
  -d '{"model":"smollm2","stream":true,"ignore_eos":true,"max_tokens":4000,"messages":[{"role":"user","content":"Tell me a long story."}]}' || true
for _ in $(seq 50); do
  curl -fsS "$url/metrics" >"$work/metrics"
  grep -Eq '^dynamo_frontend_inflight_requests(\{[^}]*\})? 0$' "$work/metrics" && break
  sleep 0.1
done
grep -Eq '^dynamo_frontend_inflight_requests(\{[^}]*\})? 0$' "$work/metrics" || fail "a request is still running after its client left"
kill -TERM "$server"
code=0
wait "$server" || code=$?
server=
[ "$code" = 0 ] || fail "serve exited with $code after SIGTERM"
echo "ok: disconnect and SIGTERM"
