#!/usr/bin/env bash
# Checks that every module states what it needs, by itself and as the workspace
# has it: `go work sync` levels versions that `go mod tidy -diff` calls clean.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
for dir in $(go list -m -f '{{.Dir}}') "$PWD/tools"; do
	if [[ $dir == "$PWD/tools" ]]; then
		GOWORK=off go -C "$dir" mod verify >/dev/null || bad=1 # tool lines only: tidy would fetch the tests of every linter
		continue
	fi
	GOWORK=off go -C "$dir" mod tidy -diff || { echo "tidy: run go mod tidy in ${dir#"$PWD"/}" >&2; bad=1; }
done
sums() { git ls-files --cached --others --exclude-standard '*go.mod' '*go.sum' go.work.sum | sort | xargs sha256sum; }
before=$(sums)
go work sync
if ! diff <(echo "$before") <(sums); then
	echo "tidy: go work sync has changed these files; commit them" >&2
	bad=1
fi
exit $bad
