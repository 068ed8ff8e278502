#!/usr/bin/env bash
# Makes the generated files again, and fails when that changes any. Those of bpf
# only where the compiler is: its very version makes the committed bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

sums() { find proto bpf -name '*.pb.go' -o -name '*_bpfel.*' | sort | xargs sha256sum; }

before=$(sums)
bin/tools/buf generate
if command -v clang-19 >/dev/null && command -v llvm-strip-19 >/dev/null; then
	go generate ./bpf/...
else
	echo "generated: no clang-19 here; bpf's files are not made again"
fi
if ! diff <(echo "$before") <(sums); then
	echo "generated: these files were out of date; they are new now, commit them" >&2
	exit 1
fi
