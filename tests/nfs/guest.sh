#!/bin/busybox sh
# The first process of the guest of run.sh: makes it an NFS server and its own
# client, runs the tests there, says how they went, and ends the guest.
#
#   /export  what the server has, on ext4
#   /mnt     the same by NFS 4.2: here the tests work
#   /other   the same again, with nothing in common with /mnt: another client
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /tmp /export /mnt /other

end() {
  echo "guest: $1"
  poweroff -f
}

prepare() {
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t devtmpfs dev /dev
  mount -t tmpfs tmpfs /tmp
  ip link set lo up
  hostname guest
  while read -r module; do
    [ "$module" = order ] || insmod "/modules/$module"
  done </modules/order

  truncate -s 256M /tmp/disk
  mkfs.ext4 -q /tmp/disk
  losetup /dev/loop0 /tmp/disk
  mount -t ext4 /dev/loop0 /export
  chmod 777 /export

  # What exportfs(8) and rpc.mountd(8) would tell the kernel (its
  # filesystems/nfs/rpc-cache.rst): 127.0.0.1 is client "all"; that may use
  # /export (0x2000 it is the root, 0x400 no check of subtrees, 0x2 any port;
  # root stays root), which has the file system id 0.
  mount -t nfsd nfsd /proc/fs/nfsd
  never=2147483647
  echo "nfsd 127.0.0.1 $never all" >/proc/net/rpc/auth.unix.ip/channel
  echo "all /export $never $((0x2402)) 65534 65534 0" \
    >/proc/net/rpc/nfsd.export/channel
  echo "all 1 \\x00000000 $never /export" >/proc/net/rpc/nfsd.fh/channel
  echo "-2 -3 +4 +4.1 +4.2" >/proc/fs/nfsd/versions
  # Where the server notes its clients; without it none could open anything
  # before those of an earlier life had time to come back.
  mkdir -p /var/lib/nfs/v4recovery
  echo "tcp 2049" >/proc/fs/nfsd/portlist
  echo 4 >/proc/fs/nfsd/threads
  echo Y >/proc/fs/nfsd/v4_end_grace
  options=vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1
  mount -t nfs4 -o $options 127.0.0.1:/ /mnt
  mount -t nfs4 -o $options,nosharecache 127.0.0.1:/ /other
}

set -e
trap 'dmesg | tail -20; end failed' EXIT
prepare
cd /ckpt
export HOME=/tmp DENO_DIR=/tmp/deno NO_COLOR=1 DENO_NO_UPDATE_CHECK=1
# Here the tests have their directories.
export TMPDIR=/mnt
deno test --allow-all --no-check --no-lock tests/nfs/cases.ts
trap - EXIT
end passed
