#!/usr/bin/env bash
# Compares the contracts with those of main, or, on main itself, with those of
# its last commit but one. A change that breaks the wire or its JSON fails.
set -euo pipefail
cd "$(dirname "$0")/.."

against=
for ref in origin/main main; do
	git rev-parse --verify --quiet "$ref^{commit}" >/dev/null && against=$ref && break
done
if [[ -n $against && $(git rev-parse "$against") == $(git rev-parse HEAD) ]] && git diff --quiet HEAD -- proto; then
	against=$(git rev-parse --verify --quiet HEAD~1 || true)
fi
if [[ -z $against ]] || ! git cat-file -e "$against:buf.yaml" 2>/dev/null; then
	echo "breaking: there is nothing yet to compare the contracts with"
	exit 0
fi
# Not buf's own git input: that knows no worktrees and no shallow clones.
old=$(mktemp -d)
trap 'rm -rf "$old"' EXIT
git archive "$against" buf.yaml proto | tar -x -C "$old"
bin/tools/buf breaking --against "$old"
