#!/bin/bash
# Runs a command with IMAGES on a new file system of that type: ext4, btrfs or
# xfs in a file (as root), in a mount namespace that ends with it.
#
#     bench/on.sh btrfs make bench
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# \?//p' "$0" >&2; exit 2; }
if [ "${IMAGES-}" != /run/ckpt-bench ]; then
  IMAGES=/run/ckpt-bench exec unshare --mount --propagation private "$0" "$@"
fi

type=$1
shift
mount -t tmpfs -o mode=755 none /run
file=$(mktemp "${TMPDIR:-/var/tmp}/ckpt-bench.XXXXXX")
trap 'rm -f "$file"' EXIT
truncate -s 8G "$file"
"mkfs.$type" -q "$file"
mkdir "$IMAGES"
mount -o loop "$file" "$IMAGES"
"$@"
