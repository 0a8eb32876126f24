#!/bin/bash
# Dumps a running program with several threads, restores it, and shows that it
# went on. `make demo` runs this after the build.
set -euo pipefail
cd "$(dirname "$0")/.."
ckpt=$PWD/dist/ckpt

if [ "$(id -u)" -ne 0 ]; then
  echo "The demo needs root: sudo make demo" >&2
  exit 1
fi

directory=$(mktemp -d)
pid=
finish() {
  # Only our own program: its command line names our directory.
  if [ -n "$pid" ] && grep -qs "$directory" "/proc/$pid/cmdline"; then
    kill -9 "$pid"
  fi
  rm -rf "$directory"
}
trap finish EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
last() { tail -n 1 "$directory/log"; }
grow() { # until the log has more than $1 lines
  for _ in $(seq 100); do
    [ "$(wc -l <"$directory/log")" -gt "$1" ] && return
    sleep 0.1
  done
  echo "the program does not go on" >&2
  exit 1
}

cat >"$directory/counter.py" <<'PYTHON'
import sys, threading, time
lock, counts = threading.Lock(), [0, 0, 0, 0]
log = open(sys.argv[1], "a", buffering=1)

def count(me):
    while True:
        with lock:
            counts[me] += 1
        time.sleep(0.01)

for me in range(4):
    threading.Thread(target=count, args=(me,), daemon=True).start()
while True:
    time.sleep(0.2)
    with lock:
        print("counts of four threads:", *counts, file=log)
PYTHON

say "1. A python3 program with five threads, which counts into a log"
: >"$directory/log"
# Without what a terminal or an editor may have left open in this shell.
(
  for descriptor in /proc/"$BASHPID"/fd/*; do
    number=${descriptor##*/}
    [ "$number" -le 2 ] || eval "exec $number>&-"
  done
  exec setsid python3 "$directory/counter.py" "$directory/log" \
    </dev/null >/dev/null 2>&1
) &
pid=$!
grow 5
echo "pid $pid, $(ls "/proc/$pid/task" | wc -l) threads; $(last)"

say "2. ckpt dump --tree $pid --images-dir images"
mkdir "$directory/images"
failed=
{
  "$ckpt" dump --tree "$pid" --images-dir "$directory/images" 2>&1 || failed=yes
  # It was our child: take its exit status, so that its pid is free again. The
  # shell would tell of its end on standard error.
  [ -n "$failed" ] || wait "$pid" || true
} 2>/dev/null
[ -z "$failed" ] || exit 1
if [ -e "/proc/$pid" ]; then
  echo "pid $pid is still there" >&2
  exit 1
fi
before=$(wc -l <"$directory/log")
echo "pid $pid is gone; $(du -sh "$directory/images" | cut -f1) of images;" \
  "$(last)"

say "3. ckpt restore --restore-detached --images-dir images"
"$ckpt" restore --restore-detached --images-dir "$directory/images"
grow $((before + 5))
echo "pid $pid, $(ls "/proc/$pid/task" | wc -l) threads; $(last)"

say "It went on where it was: same pid, same threads, same counts."
