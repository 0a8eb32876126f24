/** Mounts as real hosts have them, and what becomes of them. */
import { assertEquals } from "@std/assert";
import { parseMountInfo } from "../proc/mountinfo.ts";
import { parseExternalMounts } from "./external.ts";
import { type MountsPlan, planMounts } from "./plan_dump.ts";

/** A desktop: systemd shares everything. */
const DESKTOP = `\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro
23 22 0:6 / /dev rw,nosuid,relatime shared:2 - devtmpfs udev rw,size=8114892k,nr_inodes=2028723,mode=755,inode64
24 23 0:24 / /dev/pts rw,nosuid,noexec,relatime shared:3 - devpts devpts rw,gid=5,mode=620,ptmxmode=000
25 22 0:25 / /run rw,nosuid,nodev,noexec,relatime shared:5 - tmpfs tmpfs rw,size=1629132k,mode=755,inode64
26 22 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
27 22 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
28 26 0:7 / /sys/kernel/security rw,nosuid,nodev,noexec,relatime shared:8 - securityfs securityfs rw
29 23 0:26 / /dev/shm rw,nosuid,nodev shared:4 - tmpfs tmpfs rw,inode64
30 26 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
31 27 0:32 / /proc/sys/fs/binfmt_misc rw,relatime shared:15 - autofs systemd-1 rw,fd=29,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=18205
32 22 8:1 / /boot/efi rw,relatime shared:60 - vfat /dev/sda1 rw,fmask=0077,dmask=0077,codepage=437
33 25 0:50 / /run/user/1000 rw,nosuid,nodev,relatime shared:300 - tmpfs tmpfs rw,size=1629128k,mode=700,uid=1000,gid=1000,inode64
34 33 0:51 / /run/user/1000/gvfs rw,nosuid,nodev,relatime shared:310 - fuse.gvfsd-fuse gvfsd-fuse rw,user_id=1000,group_id=1000
`;

/** unshare -m on it: a copy of everything, private. */
const UNSHARED = DESKTOP.replaceAll(/ shared:\d+/g, "").replaceAll(
  /^(\d+) (\d+)/gm,
  (_, id, parent) => `${Number(id) + 400} ${Number(parent) + 400}`,
) + "460 422 0:61 / /mnt rw,relatime - tmpfs mine rw,size=1024k\n" +
  "461 422 8:2 /home/u /srv rw,relatime - ext4 /dev/sda2 rw,errors=remount-ro\n";

/** podman run -v volume:/data, rootful, overlay storage. */
const PODMAN = `\
700 650 0:70 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/containers/storage/overlay/l/AAA:/var/lib/containers/storage/overlay/l/BBB,upperdir=/var/lib/containers/storage/overlay/c0ffee/diff,workdir=/var/lib/containers/storage/overlay/c0ffee/work,metacopy=on
701 700 0:72 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
702 700 0:73 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
703 700 0:23 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw
704 702 0:74 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
705 702 0:71 / /dev/mqueue rw,nosuid,nodev,noexec,relatime - mqueue mqueue rw
706 702 0:69 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=64000k,inode64
707 700 0:25 /containers/storage/overlay-containers/c0ffee/userdata/hosts /etc/hosts rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,size=1629132k,mode=755,inode64
708 700 8:2 /var/lib/containers/storage/volumes/v/_data /data rw,nosuid,nodev,relatime master:1 - ext4 /dev/sda2 rw,errors=remount-ro
709 703 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
710 701 0:72 /asound /proc/asound ro,nosuid,nodev,noexec,relatime - proc proc rw
711 701 0:72 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
712 701 0:75 / /proc/acpi ro,relatime - tmpfs tmpfs rw,size=0k,inode64
713 701 0:73 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
`;

const PODMAN_HOST = DESKTOP +
  "80 22 0:70 / /var/lib/containers/storage/overlay/c0ffee/merged rw,nodev,relatime shared:400 - overlay overlay rw,lowerdir=l\n" +
  "81 22 0:69 / /var/lib/containers/storage/overlay-containers/c0ffee/userdata/shm rw,nosuid,nodev,noexec,relatime shared:401 - tmpfs shm rw,size=64000k,inode64\n";

/** A pod on a Kubernetes node with containerd, and mountPropagation: HostToContainer. */
const POD = `\
1200 1100 0:400 / / rw,relatime master:500 - overlay overlay rw,lowerdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/77/fs,upperdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/90/fs,workdir=/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/90/work
1201 1200 0:401 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1202 1200 0:402 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
1203 1202 0:403 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
1204 1200 8:2 /var/lib/kubelet/pods/9d2c/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda2 rw,errors=remount-ro
1205 1200 8:2 /mnt/plugins /plugins rw,relatime master:1 - ext4 /dev/sda2 rw,errors=remount-ro
1206 1200 0:390 / /var/run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw,size=131072k,inode64
1207 1205 9:0 / /plugins/volume rw,relatime master:510 - xfs /dev/md0 rw,attr2,inode64
`;

const NODE = DESKTOP +
  "90 25 0:400 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/9d2c/rootfs rw,relatime shared:500 - overlay overlay rw\n" +
  "91 22 0:390 / /var/lib/kubelet/pods/9d2c/volumes/kubernetes.io~projected/token rw,relatime shared:501 - tmpfs tmpfs rw,size=131072k,inode64\n" +
  "92 22 9:0 / /mnt/plugins/volume rw,relatime shared:510 - xfs /dev/md0 rw,attr2,inode64\n";

/** A service with PrivateTmp=, ProtectSystem=full and PrivateDevices=. */
const SERVICE = DESKTOP.replaceAll(
  / shared:(\d+)/g,
  (_, group) => ` shared:${Number(group) + 900} master:${group}`,
).replaceAll(
  /^(\d+) (\d+)/gm,
  (_, id, parent) => `${Number(id) + 800} ${Number(parent) + 800}`,
) +
  "860 822 8:2 /tmp/systemd-private-1234-x.service-Zz/tmp /tmp rw,relatime shared:970 master:1 - ext4 /dev/sda2 rw,errors=remount-ro\n" +
  "861 822 8:2 /usr /usr ro,relatime shared:971 master:1 - ext4 /dev/sda2 rw,errors=remount-ro\n" +
  "862 823 0:90 / /dev ro,nosuid,noexec shared:972 - tmpfs tmpfs rw,size=4096k,nr_inodes=1024,mode=755,inode64\n";

function plan(
  container: string,
  host: string,
  ...external: string[]
): MountsPlan {
  return planMounts(
    [{ number: 9, mounts: parseMountInfo(container) }],
    parseMountInfo(host),
    parseExternalMounts(external),
  );
}

/** "/proc: fresh", with paths of the host. */
function origins({ mounts }: MountsPlan): string[] {
  return mounts.map(({ mount, origin, hostPath, peerPath, masterPath }) =>
    [
      `${mount.point}: ${origin.kind}`,
      ...origin.kind === "named" ? [origin.name] : [],
      ...origin.kind === "automatic" ? [origin.path] : [],
      ...hostPath === undefined ? [] : [`at ${hostPath}`],
      ...peerPath === undefined ? [] : [`peer of ${peerPath}`],
      ...masterPath === undefined ? [] : [`slave of ${masterPath}`],
    ].join(" ")
  );
}

Deno.test("what a desktop's unshared shell shares with the host has to be named, all at once", () => {
  const { reasons, neededOptions } = plan(UNSHARED, DESKTOP);
  assertEquals(neededOptions, [
    "--external mnt[/dev/pts]:dev-pts",
    "--external mnt[/run]:run",
    "--external mnt[/dev/shm]:dev-shm",
    "--external mnt[/proc/sys/fs/binfmt_misc]:proc-sys-fs-binfmt_misc",
    "--external mnt[/boot/efi]:boot-efi",
    "--external mnt[/run/user/1000]:run-user-1000",
    "--external mnt[/run/user/1000/gvfs]:run-user-1000-gvfs",
  ]);
  assertEquals(reasons[4], {
    object: "mount 432 at /boot/efi (vfat, /dev/sda1)",
    why: "ckpt cannot mount this by itself",
    remedy: "--external mnt[/boot/efi]:boot-efi, and at the restore " +
      "--external mnt[boot-efi]:/boot/efi, or --external dev[8/1]:boot-efi " +
      "and at the restore --external dev[boot-efi]:/dev/sda1",
  });
});

Deno.test("the options that an unshared shell is told to need are enough", () => {
  const { neededOptions } = plan(UNSHARED, DESKTOP);
  const given = neededOptions.map((option) => option.split(" ")[1]);
  const planned = plan(UNSHARED, DESKTOP, ...given);
  assertEquals(planned.reasons, []);
  assertEquals(origins(planned).slice(-3), [
    "/run/user/1000/gvfs: named run-user-1000-gvfs",
    "/mnt: fresh",
    "/srv: part",
  ]);
  assertEquals(planned.superblocks.map(({ mounts: [{ point }] }) => point), [
    "/mnt",
  ]);
});

Deno.test("what the host has is found in an unshared shell", () => {
  const planned = plan(UNSHARED, DESKTOP, "mnt[]");
  assertEquals(planned.reasons, []);
  assertEquals(origins(planned), [
    "/: root at /",
    "/dev: automatic /dev",
    "/dev/pts: automatic /dev/pts",
    "/run: automatic /run",
    "/sys: automatic /sys",
    "/proc: automatic /proc",
    "/sys/kernel/security: automatic /sys/kernel/security",
    "/dev/shm: automatic /dev/shm",
    "/sys/fs/cgroup: automatic /sys/fs/cgroup",
    "/proc/sys/fs/binfmt_misc: automatic /proc/sys/fs/binfmt_misc",
    "/boot/efi: automatic /boot/efi",
    "/run/user/1000: automatic /run/user/1000",
    "/run/user/1000/gvfs: automatic /run/user/1000/gvfs",
    "/mnt: fresh",
    "/srv: part",
  ]);
});

Deno.test("a container of podman needs what the host put into it", () => {
  const { neededOptions } = plan(PODMAN, PODMAN_HOST);
  assertEquals(neededOptions, [
    "--external mnt[/dev/shm]:dev-shm",
    "--external mnt[/etc/hosts]:etc-hosts",
    "--external mnt[/data]:data",
  ]);
  const planned = plan(
    PODMAN,
    PODMAN_HOST,
    "mnt[/dev/shm]:shm",
    "mnt[/etc/hosts]:hosts",
    "mnt[/data]:volume",
  );
  assertEquals(planned.reasons, []);
  assertEquals(origins(planned), [
    "/: root at /var/lib/containers/storage/overlay/c0ffee/merged",
    "/proc: fresh",
    "/dev: fresh",
    "/sys: fresh",
    "/dev/pts: fresh",
    "/dev/mqueue: fresh",
    "/dev/shm: named shm",
    "/etc/hosts: named hosts",
    "/data: named volume slave of /",
    "/sys/fs/cgroup: fresh",
    "/proc/asound: fresh",
    "/proc/sys: fresh",
    "/proc/acpi: fresh",
    "/proc/kcore: fresh",
  ]);
  assertEquals(
    planned.superblocks.map(({ mounts }) => mounts.map(({ point }) => point)),
    [["/dev"], ["/proc/acpi"]],
  );
});

Deno.test("a pod follows the node, where it did", () => {
  const planned = plan(POD, NODE, "mnt[]:m");
  assertEquals(planned.reasons, []);
  assertEquals(origins(planned), [
    "/: root at /run/containerd/io.containerd.runtime.v2.task/k8s.io/9d2c/rootfs " +
    "slave of /run/containerd/io.containerd.runtime.v2.task/k8s.io/9d2c/rootfs",
    "/proc: fresh",
    "/dev: fresh",
    "/dev/pts: fresh",
    "/etc/hosts: automatic /var/lib/kubelet/pods/9d2c/etc-hosts",
    "/plugins: automatic /mnt/plugins slave of /",
    "/var/run/secrets/kubernetes.io/serviceaccount: automatic " +
    "/var/lib/kubelet/pods/9d2c/volumes/kubernetes.io~projected/token",
    "/plugins/volume: automatic /mnt/plugins/volume slave of /mnt/plugins/volume",
  ]);
  // Slaves are only taken when that was allowed.
  assertEquals(
    plan(POD, NODE, "mnt[]").neededOptions,
    [
      "--external mnt[/plugins]:plugins",
      "--external mnt[/plugins/volume]:plugins-volume",
    ],
  );
});

Deno.test("a service of systemd is a slave of the host throughout", () => {
  const planned = plan(SERVICE, DESKTOP, "mnt[]:m");
  assertEquals(planned.reasons, []);
  const found = origins(planned);
  assertEquals([found[0], ...found.slice(-3)], [
    "/: root at / slave of /",
    "/tmp: part slave of /",
    "/usr: part slave of /",
    "/dev: fresh",
  ]);
});

Deno.test("stacked mounts are told apart by their ids", () => {
  const stacked = PODMAN +
    "720 708 9:1 / /data rw,relatime - xfs /dev/md1 rw\n";
  assertEquals(
    plan(stacked, PODMAN_HOST, "mnt[/dev/shm]:shm", "mnt[/etc/hosts]:hosts")
      .neededOptions,
    ["--external mnt[#708]:data", "--external mnt[/data]:data-720"],
  );
  assertEquals(
    origins(plan(
      stacked,
      PODMAN_HOST,
      "mnt[/dev/shm]:shm",
      "mnt[/etc/hosts]:hosts",
      "mnt[#708]:volume",
      "mnt[/data]:over",
    )).filter((line) => line.startsWith("/data")),
    ["/data: named volume slave of /", "/data: named over"],
  );
});

Deno.test("peers of the host are found again, a group of nobody is refused", () => {
  const peers =
    "500 450 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro\n" +
    "501 500 8:2 /x /x rw,relatime master:77 - ext4 /dev/sda2 rw,errors=remount-ro\n";
  const planned = plan(peers, DESKTOP);
  assertEquals(origins(planned), ["/: root at / peer of /", "/x: part"]);
  assertEquals(planned.reasons, [{
    object: "mount 501 at /x (ext4, /dev/sda2)",
    why: "it receives mounts from peer group 77, and no mount of ckpt's own " +
      "namespace is in that",
    remedy: "run ckpt in the mount namespace that the mounts come from",
  }]);
});

Deno.test("wrong options are told", () => {
  assertEquals(
    plan(POD, NODE, "mnt[]:xyz", "mnt[/nowhere]:n", "mnt[/dev]").reasons
      .map(({ object, why }) => `${object}: ${why}`)
      .filter((line) => line.startsWith("--external")),
    [
      "--external mnt[]:xyz: its flags are m (slaves) and s (shared)",
      "--external mnt[/dev]: it lacks what mnt[/dev] stands for: mnt[/dev]:...",
      "--external mnt[/nowhere]:n: the program has no such mount, or its root " +
      "is there",
    ],
  );
});
