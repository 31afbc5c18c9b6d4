#!/usr/bin/env bash
# Starts the demo, drives its page in a real browser, and stops it again. Needs
# built programs in bin/, npm, and Chromium (Debian's package chromium).
set -euo pipefail
cd "$(dirname "$0")"
(npm ci --silent --no-audit --no-fund)
work=$(mktemp -d "${TMPDIR:-/tmp}/cavra-web.XXXXXX")
go build -o "$work/demo" ../cmd/demo
(cd ../.. && exec "$work/demo" -bin bin) >"$work/demo.log" 2>&1 &
demo=$!
trap 'kill -INT $demo 2>/dev/null || true; wait $demo 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 600); do
	url=$(sed -n 's/^Page: *//p' "$work/demo.log")
	token=$(sed -n 's/^Login: *the token in //p' "$work/demo.log")
	if [ -n "$url" ] && [ -n "$token" ]; then break; fi
	if ! kill -0 $demo 2>/dev/null; then cat "$work/demo.log"; exit 1; fi
	sleep 0.2
done
CAVRA_URL=$url CAVRA_TOKEN_FILE=$token node --test page.test.mjs
