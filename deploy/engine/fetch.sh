#!/usr/bin/env bash
# Fetches the embedded ClickHouse engine (libchdb.so) that engine.json pins.
#
#   deploy/engine/fetch.sh [DEST]      DEST defaults to bin/libchdb.so
#
# The archive's integrity is verified before anything is extracted from it, and
# the library's own digest before it is put in place, so DEST is either absent,
# the previous library, or the pinned one: never a part of one. A DEST that
# already is the pinned library is left alone, offline too.
set -euo pipefail

die() { echo "fetch engine: $*" >&2; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dest=${1:-$here/../../bin/libchdb.so}
pin=$here/engine.json

[ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] ||
	die "the embedded engine is pinned for linux/amd64 and this is $(uname -s)/$(uname -m): use a ClickHouse cluster instead (--config), or run on linux/amd64"
[ -r "$pin" ] || die "cannot read $pin: it belongs to the source tree, restore it with git"
if ldd --version 2>&1 | grep -qi musl; then
	die "the pinned library needs glibc and this system has musl: run on a glibc distribution, or use a ClickHouse cluster (--config)"
fi

# engine.json is flat, one field a line, so that it can be read before any
# interpreter is known to exist.
field() { sed -n "s/^ *\"$1\": *\"\\([^\"]*\\)\".*/\\1/p" "$pin"; }
package=$(field package) version=$(field version) integrity=$(field integrity)
member=$(field library) sha256=$(field library_sha256)
for value in "$package" "$version" "$integrity" "$member" "$sha256"; do
	[ -n "$value" ] || die "$pin lacks a field: restore it with git"
done

digest() { sha256sum "$1" | cut -d' ' -f1; }

stamp=$dest.pin
if [ -f "$dest" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$integrity" ] && [ "$(digest "$dest")" = "$sha256" ]; then
	echo "engine $package@$version is in place: $dest"
	exit 0
fi

command -v npm >/dev/null || die "npm is not on PATH: install Node.js (which brings npm), then run 'make engine' again"

mkdir -p "$(dirname "$dest")" || die "cannot make the folder of $dest: choose another DEST"
# On the destination's file system, so that the last step is one rename.
work=$(mktemp -d "$(dirname "$dest")/.engine-XXXXXX") || die "cannot write beside $dest: choose another DEST"
trap 'rm -rf "$work"' EXIT

echo "fetching $package@$version (159 MiB)"
(cd "$work" && npm pack --silent "$package@$version" >name 2>npm.log) || {
	cat "$work/npm.log" >&2
	die "npm could not download $package@$version: check the network and npm's registry and proxy settings (npm config get registry), or copy a libchdb.so from a machine that has it to $dest together with $stamp"
}
archive=$work/$(tail -n1 "$work/name")
[ -f "$archive" ] || die "npm reported no archive for $package@$version: run 'npm pack $package@$version' by hand to see why"

if command -v openssl >/dev/null; then
	got=sha512-$(openssl dgst -sha512 -binary "$archive" | base64 -w0)
else
	got=sha512-$(node -e 'const h=require("crypto").createHash("sha512");require("fs").createReadStream(process.argv[1]).on("data",d=>h.update(d)).on("end",()=>process.stdout.write(h.digest("base64")))' "$archive")
fi
[ "$got" = "$integrity" ] ||
	die "the archive is not the pinned one: integrity is $got, $pin wants $integrity. Nothing was installed. A registry mirror that alters packages, or a damaged download, does this: try another registry"

tar -xzf "$archive" -C "$work" "$member" || die "cannot extract $member: is the disk full? $(df -h "$work" | tail -n1)"
rm -f "$archive"
got=$(digest "$work/$member")
[ "$got" = "$sha256" ] || die "$member has sha256 $got, $pin wants $sha256. Nothing was installed"

chmod 0755 "$work/$member"
printf '%s\n' "$integrity" >"$work/stamp"
sync "$work/$member" "$work/stamp"
mv -f "$work/$member" "$dest"
mv -f "$work/stamp" "$stamp"
sync "$(dirname "$dest")"
echo "engine $package@$version installed: $dest"
