/**
 * The options and commands of CRIU that ckpt does not have, as far as criu(8),
 * `criu --help` and its announcements name them. They are refused by name, with what to do instead, so that
 * a script written for CRIU learns at once what it has to change.
 */
import type { ArgumentKind } from "./option_table.ts";

export interface CriuOption {
  name: string;
  short?: string;
  argument: ArgumentKind;
  /** What to do instead. */
  remedy: string;
}

const CONNECTIONS =
  "leave it out; ckpt check PID lists the sockets that cannot be saved";
const PAGE_SERVER =
  "leave it out; dump into a directory (-D) and copy that to the other host";
const FULL_DUMP = "leave it out; every dump of ckpt is complete in itself";
const CGROUPS =
  "leave it out; start ckpt restore in the cgroup the program is to live in";
const MOUNTS =
  "leave it out; ckpt check PID says whether the mounts can be saved";
const DELETED = "leave it out; holes in deleted files are always found";
const KERNEL =
  "leave it out; ckpt check tries everything ckpt needs of the kernel";
const COMPARISON = "leave it out; ckpt itself compares what it depends on";
const SECURITY_MODULES =
  "leave it out; start ckpt restore under the security profile that is wanted";

export const CRIU_OPTIONS: readonly CriuOption[] = [
  option("network-lock", "required", CONNECTIONS),
  option("veth-pair", "required", CONNECTIONS),
  option("empty-ns", "required", "leave it out; namespaces are restored whole"),
  option(
    "join-ns",
    "required",
    "leave it out; start ckpt restore in that namespace with nsenter(1)",
    "J",
  ),
  option(
    "namespaces",
    "required",
    "leave it out; ckpt finds the namespaces of the program by itself",
    "n",
  ),
  option("page-server", "none", PAGE_SERVER),
  option("address", "required", PAGE_SERVER),
  option("port", "required", PAGE_SERVER),
  option("ps-socket", "required", PAGE_SERVER),
  option("daemon", "none", PAGE_SERVER),
  option("status-fd", "required", PAGE_SERVER),
  option("tls", "none", PAGE_SERVER),
  option("tls-cacert", "required", PAGE_SERVER),
  option("tls-cacrl", "required", PAGE_SERVER),
  option("tls-cert", "required", PAGE_SERVER),
  option("tls-key", "required", PAGE_SERVER),
  option("tls-no-cn-verify", "none", PAGE_SERVER),
  option("stream", "none", PAGE_SERVER),
  option("lazy-pages", "none", "leave it out; restore fills the memory itself"),
  option("track-mem", "none", FULL_DUMP),
  option("prev-images-dir", "required", FULL_DUMP),
  option("auto-dedup", "none", FULL_DUMP),
  option("pre-dump-mode", "required", FULL_DUMP),
  option("manage-cgroups", "optional", CGROUPS),
  option("cgroup-root", "required", CGROUPS),
  option("cgroup-props", "required", CGROUPS),
  option("cgroup-props-file", "required", CGROUPS),
  option("cgroup-dump-controller", "required", CGROUPS),
  option("cgroup-yard", "required", CGROUPS),
  option("ext-mount-map", "required", MOUNTS, "M"),
  option("enable-external-sharing", "none", MOUNTS),
  option("enable-external-masters", "none", MOUNTS),
  option("mntns-compat-mode", "none", MOUNTS),
  option("skip-mnt", "required", MOUNTS),
  option("enable-fs", "required", MOUNTS),
  option("ghost-fiemap", "none", DELETED),
  option(
    "evasive-devices",
    "none",
    "leave it out; put the device files where the program expects them",
  ),
  option(
    "skip-file-rwx-check",
    "none",
    "use --file-validation none",
  ),
  option("cpu-cap", "optional", COMPARISON),
  option("weak-sysctls", "none", "leave it out; ckpt restores no sysctls"),
  option("lsm-profile", "required", SECURITY_MODULES),
  option("lsm-mount-context", "required", SECURITY_MODULES),
  option(
    "allow-uprobes",
    "none",
    "leave it out; remove the probes from the program before the dump",
  ),
  option(
    "unprivileged",
    "none",
    "leave it out; ckpt uses the capabilities it finds and names those it misses",
  ),
  option(
    "action-script",
    "required",
    "leave it out; run the script before or after ckpt",
  ),
  option(
    "exec-cmd",
    "none",
    "leave it out; use --restore-detached with --pidfile and start the command",
  ),
  option("libdir", "required", "leave it out; ckpt has no plugins", "L"),
  option(
    "close",
    "required",
    "leave it out; close the descriptor in the shell, as in: ckpt ... 5>&-",
  ),
  option(
    "log-pid",
    "none",
    "leave it out; one log (-o FILE) holds all tasks",
  ),
  option(
    "display-stats",
    "none",
    "leave it out; the figures are in stats-dump and stats-restore, in the log (-v3) and in the result of --json",
  ),
  option("extra", "none", KERNEL),
  option("experimental", "none", KERNEL),
  option("all", "none", KERNEL),
  option("feature", "required", KERNEL),
  option("ms", "none", KERNEL),
];

/** Commands of CRIU that ckpt does not have, with what to do instead. */
export const CRIU_COMMANDS: ReadonlyMap<string, string> = new Map([
  ["pre-dump", "use ckpt dump; every dump of ckpt is complete in itself"],
  ["page-server", "dump into a directory and copy that to the other host"],
  ["lazy-pages", "use ckpt restore; it fills the memory itself"],
  ["service", "start ckpt as a command; --json makes its answers readable"],
  ["swrk", "start ckpt as a command; --json makes its answers readable"],
  ["dedup", "delete the older image directories; each is complete in itself"],
  ["cpuinfo", "use ckpt check"],
  ["exec", "use a debugger"],
]);

function option(
  name: string,
  argument: ArgumentKind,
  remedy: string,
  short?: string,
): CriuOption {
  return { name, argument, remedy, short };
}
