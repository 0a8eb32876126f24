#!/bin/bash
# Runs a command with IMAGES on a new file system of that type: ext4, btrfs or
# xfs in a file (as root), in a mount namespace that ends with it.
#
#     bench/on.sh btrfs make bench
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# \?//p' "$0" >&2; exit 2; }
if [ -z "${CKPT_BENCH_MOUNTS-}" ]; then
  CKPT_BENCH_MOUNTS=own exec unshare --mount --propagation private "$0" "$@"
fi

type=$1
shift
directory=$(mktemp -d "${TMPDIR:-/var/tmp}/ckpt-bench.XXXXXX")
trap 'umount "$directory/images" || true; rm -rf --one-file-system "$directory"' EXIT
truncate -s 8G "$directory/disk"
"mkfs.$type" -q "$directory/disk"
mkdir "$directory/images"
mount -o loop "$directory/disk" "$directory/images"
# Not below /run, where the benchmark has a tmpfs of its own.
IMAGES=$directory/images "$@"
