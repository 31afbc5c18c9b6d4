#!/usr/bin/env bash
# Runs every command of the sh blocks in README.md and CONTRIBUTING.md, in order,
# but for those that CI has stages of their own for, which it names.
set -euo pipefail
cd "$(dirname "$0")/.."
ran=0
while IFS= read -r line; do
	case $line in
	'make test' | 'DEMO_ONCE=1 make demo') echo "has a stage of its own: $line" && continue ;;
	esac
	echo "\$ $line"
	bash -c "$line" </dev/null >/tmp/readme.$$ 2>&1 || { code=$?; cat /tmp/readme.$$; rm -f /tmp/readme.$$; echo "exit code $code: $line"; exit 1; }
	ran=$((ran + 1))
done < <(awk '/^```sh$/ {on = 1; next} /^```/ {on = 0} on && NF' README.md CONTRIBUTING.md)
rm -f /tmp/readme.$$ report.json
((ran > 0)) || { echo "no command was found"; exit 1; }
echo "$ran commands ran"
