#!/usr/bin/env bash
# Runs every fuzz target of the workspace, one after the other, for the time
# that is given (10s). go test fuzzes only one target of one package at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

for_each=${1:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() { # target package
	go test -run '^$' -fuzz "^$1\$" -fuzztime "$for_each" -fuzzminimizetime 10x "$2" </dev/null 2>&1 | tee "$log" && return
	# Before Go 1.27 a target may fail with this alone as the time is over, having
	# found nothing (go.dev/issue/75804).
	grep -Eq '^ *context deadline exceeded$' "$log" && ! grep -q 'Failing input written' "$log"
}

git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -l '^func Fuzz' | while read -r file; do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		echo "== $(dirname "$file") $target"
		fuzz "$target" "./$(dirname "$file")"
	done
done
