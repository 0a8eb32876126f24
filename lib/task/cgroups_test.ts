import { assertEquals } from "@std/assert";
import { parseCgroup } from "../proc/cgroup.ts";
import { parseMountInfo } from "../proc/mountinfo.ts";
import { cgroupDirectory, dumpCgroups } from "./cgroups.ts";

const OWN = parseCgroup("3:cpu,cpuacct:/\n2:name=systemd:/\n0::/user\n");
const MOUNTS = parseMountInfo(
  "20 1 0:20 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct,cpu\n" +
    "21 1 0:21 /part /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
);

Deno.test("only cgroups that are not ckpt's own are saved", () => {
  const process = parseCgroup(
    "3:cpu,cpuacct:/a/b\n2:name=systemd:/\n0::/part/service\n",
  );
  assertEquals(dumpCgroups(process, OWN), [
    { controllers: "cpu,cpuacct", path: "/a/b" },
    { controllers: "", path: "/part/service" },
  ]);
  assertEquals(dumpCgroups(OWN, OWN), []);
});

Deno.test("a cgroup is found in the mount of its hierarchy, below what that mount shows", () => {
  assertEquals(
    cgroupDirectory({ controllers: "cpu,cpuacct", path: "/a/b" }, MOUNTS),
    "/sys/fs/cgroup/cpu/a/b",
  );
  assertEquals(
    cgroupDirectory({ controllers: "", path: "/part/service" }, MOUNTS),
    "/sys/fs/cgroup/unified/service",
  );
  assertEquals(
    cgroupDirectory({ controllers: "", path: "/elsewhere" }, MOUNTS),
    undefined,
  );
  assertEquals(
    cgroupDirectory({ controllers: "memory", path: "/a" }, MOUNTS),
    undefined,
  );
});
