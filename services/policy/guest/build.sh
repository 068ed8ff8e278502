#!/bin/sh
# Builds the policies of this folder into ../modules with TinyGo.
#
# TinyGo comes from the Go module proxy and is built against Debian's LLVM 19,
# so that no prebuilt toolchain is needed:
#   apt-get install llvm-19-dev libclang-19-dev clang-19 lld-19
# The proxy's copy lacks TinyGo's submodules. target.json is its wasm-unknown
# target without the two libraries (compiler-rt, a libc) that live there and
# that no policy needs; the empty src/net stands in for the third.
set -eu

version=v0.41.1
here=$(cd "$(dirname "$0")" && pwd)
home=${TINYGO_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/xinghuo/tinygo-$version}
PATH=$PATH:/usr/lib/llvm-19/bin # wasm-ld
export GOWORK=off

if [ ! -x "$home/tinygo" ]; then
	mkdir -p "$home"
	(cd /tmp && go mod download "github.com/tinygo-org/tinygo@$version")
	cp -r "$(go env GOMODCACHE)/github.com/tinygo-org/tinygo@$version" "$home/src.$$"
	chmod -R u+w "$home/src.$$"
	mkdir -p "$home/src.$$/src/net"
	mv "$home/src.$$" "$home/src"
	(cd "$home/src" && nice -n 10 go build -tags llvm19 -o "$home/tinygo" .)
fi

for policy in threshold; do
	(cd "$here/$policy" && TINYGOROOT="$home/src" "$home/tinygo" build \
		-target="$here/target.json" -scheduler=none -gc=leaking -panic=trap \
		-opt=2 -no-debug -o "$here/../modules/$policy.wasm" .)
done
