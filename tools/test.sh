#!/bin/bash
# Runs the tests in the given folders or files, and ends with one plain line:
# N passed, N failed.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
node_modules/.bin/deno test --allow-all --no-check "$@" 2>&1 | tee "$log" ||
  status=$?

# Deno's last line: "ok | 3 passed (2 steps) | 0 failed | 1 ignored (2s)".
summary=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -E '^(ok|FAILED) \|' |
  tail -1 || true)
count() {
  sed -nE "s/.*\| ([0-9]+) $1.*/\1/p" <<<"$summary"
}
passed=$(count passed) failed=$(count failed)
# A module that does not load fails the run without a failed test.
[ "$status" -ne 0 ] && [ "${failed:-0}" -eq 0 ] && failed=1
echo "${passed:-0} passed, ${failed:-0} failed"
exit "$status"
