#!/bin/bash
# Runs tests/nfs/cases.ts on NFS: in a QEMU guest that is its own NFS server.
# The guest has a kernel of Debian's and, in its initramfs, what was built here.
# Its log is shown when it fails. It ends within the time limit, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/../.."
LIMIT_SECONDS=${NFS_LIMIT_SECONDS:-1800}

tools/setup.sh tests/nfs/packages.txt

# Downloads the packages of the guest, once.
packages=dist/nfs/packages
mkdir -p $packages
newest_kernel() { ls -d $packages/boot/vmlinuz-* 2>/dev/null | tail -1; }
if [ -z "$(newest_kernel)" ] || [ ! -e $packages/bin/busybox ]; then
  mapfile -t names < <(grep -v '^#' tests/nfs/guest_packages.txt)
  # A package may only name the one of the newest version.
  for name in "${names[@]}"; do
    mapfile -t -O ${#names[@]} names < <(
      apt-cache depends "$name" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p'
    )
  done
  echo "Downloading for the guest: ${names[*]}"
  (cd $packages && apt-get download -q "${names[@]}")
  for package in $packages/*.deb; do
    dpkg-deb --extract "$package" $packages
    rm "$package"
  done
fi
kernel=$(newest_kernel)
modules=$packages/lib/modules/${kernel#*/vmlinuz-}/kernel

# The guest's files.
guest=$(mktemp -d)
qemu=
trap 'status=$?; [ -z "$qemu" ] || kill -9 "$qemu" 2>/dev/null || true
      rm -rf "$guest"; exit $status' EXIT
root=$guest/root
mkdir -p "$root"/{bin,modules,ckpt/dist,ckpt/node_modules}
cp $packages/bin/busybox "$root/bin/"
cp tests/nfs/guest.sh "$root/init"
for module in net/dns_resolver/dns_resolver fs/netfs/netfs net/sunrpc/sunrpc \
  fs/nfs_common/grace fs/lockd/lockd fs/nfs_common/nfs_acl \
  net/sunrpc/auth_gss/auth_rpcgss fs/nfsd/nfsd fs/nfs/nfs fs/nfs/nfsv4 \
  drivers/block/loop; do
  # In the order in which they need each other; some kernels have them built in.
  [ ! -e "$modules/$module.ko.xz" ] ||
    xz -dc "$modules/$module.ko.xz" >"$root/modules/${module##*/}.ko"
done
ls -tr "$root/modules" >"$root/modules/order"
cp -r lib tests deno.json package.json "$root/ckpt/"
cp -r node_modules/deno-std node_modules/protobufjs "$root/ckpt/node_modules/"
cp node_modules/.bin/deno "$(command -v mkfs.ext4)" "$root/bin/"
cp dist/ckpt dist/libckpt.so "$root/ckpt/dist/"
# Compiled here: the guest has no compiler, and takes what is newer than sources.
# An initramfs knows whole seconds only.
find "$root/ckpt/tests" -exec touch -d @0 {} +
mkdir "$root/ckpt/dist/tests"
for program in launch lost_file; do
  gcc -std=gnu11 -Wall -Wextra -Werror -O1 -pthread \
    -o "$root/ckpt/dist/tests/$program" "tests/programs/$program.c" -lrt -lm
done
ldd "$root"/bin/{deno,mkfs.ext4} "$root"/ckpt/dist/tests/* |
  sed -n 's/.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' |
  sort -u | while read -r library; do
  mkdir -p "$root${library%/*}"
  cp -L "$library" "$root$library"
done
(cd "$root" && find . | bin/busybox cpio -o -H newc 2>/dev/null) \
  >"$guest/initramfs"
rm -rf "$root"

echo "Starting a guest with Linux ${kernel#*/vmlinuz-} (no hardware support needed)"
timeout --kill-after=5 "$LIMIT_SECONDS" qemu-system-x86_64 -accel tcg -cpu max \
  -smp 2 -m 2048 -nodefaults -no-user-config -display none -no-reboot \
  -kernel "$kernel" -initrd "$guest/initramfs" \
  -append "console=ttyS0 panic=-1 quiet ${NFS_GUEST_OPTIONS-}" \
  -serial "file:$guest/log" -monitor none </dev/null &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=
result=$(tr -d '\r' <"$guest/log" | sed -n 's/^guest: \(passed\|failed\)$/\1/p')
tr -d '\r' <"$guest/log" | sed 's/\x1b\[[0-9;]*[mJ]//g' >dist/nfs/log
if [ "$result" != passed ]; then
  cat dist/nfs/log
  [ "$status" -ne 124 ] || echo "the guest did not end within $LIMIT_SECONDS s"
  echo "make test-nfs: failed; the guest's log is above, and in dist/nfs/log"
  exit 1
fi
grep -E ' \.\.\. |^(ok|FAILED) \|' dist/nfs/log
