#!/bin/bash
# Runs the tests in the given folders or files, and ends with one plain line:
# N passed, N failed. A few tests that fail are repeated once, each alone: they
# work on a living machine, with kills at random moments. What fails twice has
# failed; what does not is named, to be looked at.
set -euo pipefail
cd "$(dirname "$0")/.."

MOST_REPEATED=4

log=$(mktemp)
trap 'rm -f "$log"' EXIT
plain() { sed 's/\x1b\[[0-9;]*m//g' "$log"; }
run() { node_modules/.bin/deno test --allow-all --no-check "$@"; }

status=0
run "$@" 2>&1 | tee "$log" || status=$?

# Deno's last line: "ok | 3 passed (2 steps) | 0 failed | 1 ignored (2s)".
summary=$(plain | grep -E '^(ok|FAILED) \|' | tail -1 || true)
count() {
  sed -nE "s/.*\| ([0-9]+) $1.*/\1/p" <<<"$summary"
}
passed=$(count passed) failed=$(count failed)

# "name => ./tests/file_test.ts:1:2", of each that failed.
failures=$(plain | sed -n '/^ FAILURES /,$p' |
  sed -nE 's/^(.*) => (\.\/[^ ]+):[0-9]+:[0-9]+$/\2\t\1/p' || true)
known=$(grep -c . <<<"$failures" || true)
if [ "$status" -ne 0 ] && [ "${failed:-0}" -gt 0 ] &&
  [ "$known" -eq "$failed" ] && [ "$failed" -le "$MOST_REPEATED" ]; then
  again=()
  while IFS=$'\t' read -r file name; do
    pattern=$(sed 's/[][\.*^$(){}?+|/]/\\&/g' <<<"$name")
    if run --filter "/^$pattern\$/" "$file" </dev/null; then
      again+=("$name")
    fi
  done <<<"$failures"
  passed=$((passed + ${#again[@]})) failed=$((failed - ${#again[@]}))
  [ "$failed" -eq 0 ] && status=0
  for name in "${again[@]}"; do echo "failed, and passed when repeated: $name"; done
fi
# A module that does not load fails the run without a failed test.
[ "$status" -ne 0 ] && [ "${failed:-0}" -eq 0 ] && failed=1
echo "${passed:-0} passed, ${failed:-0} failed"
exit "$status"
