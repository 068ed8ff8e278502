#!/usr/bin/env bash
# Runs every fuzz target of the workspace, one after the other, for the time
# that is given (10s). go test fuzzes only one target of one package at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

for_each=${1:-10s}
git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -l '^func Fuzz' | while read -r file; do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "== $(dirname "$file") $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$for_each" "./$(dirname "$file")" </dev/null
	done
done
