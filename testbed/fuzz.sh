#!/usr/bin/env bash
# Runs every fuzz target of every module, one after the other, for a given time
# each: fuzz.sh 10s
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}
grep -rnoE --include='*_test.go' '^func (Fuzz[A-Za-z0-9_]+)' schemas sdk plugins agent aggregator testbed |
  sed -E 's/^([^:]+):[0-9]+:func (.*)$/\1 \2/' | sort |
  while read -r file target; do
    echo "== $(dirname "$file") $target"
    go test "./$(dirname "$file")" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x </dev/null
  done
