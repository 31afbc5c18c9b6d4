#!/usr/bin/env bash
# Starts a throw-away PostgreSQL on 127.0.0.1, runs a command with its address in
# CAVRA_TEST_POSTGRES, and stops it again:
#
#	testbed/postgres/run.sh go test ./internal/control/...
#
# It installs nothing. It needs the programs of Debian's package postgresql (15
# or later) and, for root, whom PostgreSQL refuses, a user "postgres" or "nobody"
# to run it as.
set -euo pipefail

if [ $# -eq 0 ]; then
	echo "usage: $0 COMMAND [ARGUMENT…]" >&2
	exit 2
fi

bin=${CAVRA_POSTGRES_BIN:-}
if [ -z "$bin" ]; then
	bin=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/initdb' -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
fi
if [ ! -x "$bin/initdb" ] || [ ! -x "$bin/postgres" ]; then
	echo "$0: no PostgreSQL server found under /usr/lib/postgresql: install Debian's package postgresql, or set CAVRA_POSTGRES_BIN to the folder of initdb" >&2
	exit 1
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/cavra-postgres.XXXXXX")
as=()
if [ "$(id -u)" -eq 0 ]; then
	user=postgres
	id "$user" >/dev/null 2>&1 || user=nobody
	as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
	chown "$user" "$work"
fi
chmod 0700 "$work"

server=
# shellcheck disable=SC2317,SC2329 # the trap calls it
finish() {
	if [ -n "$server" ]; then
		# INT is PostgreSQL's fast shutdown: it does not wait for clients.
		kill -INT "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
printf '%s\n' "$password" >"$work/password"
chmod 0644 "$work/password"
# Each as[@] expands to nothing for a user who is not root.
cd "$work"
"${as[@]}" "$bin/initdb" -D "$work/data" -U cavra --pwfile="$work/password" --auth=scram-sha-256 \
	--encoding=UTF8 --locale=C --no-instructions >"$work/initdb.log" 2>&1 || { cat "$work/initdb.log" >&2; exit 1; }
cd - >/dev/null

# PostgreSQL cannot choose a free port itself, so take one that is free now and
# try again if somebody was faster.
for _ in 1 2 3 4 5; do
	port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 30000))
	(cd "$work" && exec "${as[@]}" "$bin/postgres" -D "$work/data" -p "$port" \
		-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=100 \
		>"$work/server.log" 2>&1) &
	server=$!
	for _ in $(seq 150); do
		if ! kill -0 "$server" 2>/dev/null; then
			server=
			break
		fi
		if "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U cavra -d postgres; then
			break 2
		fi
		sleep 0.2
	done
	if [ -n "$server" ]; then
		break
	fi
done
if [ -z "$server" ] || ! "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U cavra -d postgres; then
	echo "$0: PostgreSQL did not start:" >&2
	cat "$work/server.log" >&2
	exit 1
fi

CAVRA_TEST_POSTGRES="postgres://cavra:$password@127.0.0.1:$port/postgres?sslmode=disable" "$@"
