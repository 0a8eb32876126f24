/**
 * The one table of all kinds of descriptors: how each shows in /proc, how it
 * is in files.img, what of it comes back, and why the others do not.
 * docs/descriptors.md is the same for people; kinds_test.ts compares.
 */
import { fd_types } from "../image/schema.gen.ts";

export interface Kind {
  /** In the words of errors. */
  readonly name: string;
  /** Whether what /proc/PID/fd/N shows leads to one, where that tells it. */
  readonly link?: RegExp;
  /** In files.img; undefined: it is refused. */
  readonly type?: fd_types;
  /** What comes back; of what is refused, why. */
  readonly state: string;
  readonly remedy?: string;
}

function anonymous(name: string): RegExp {
  return new RegExp(`^anon_inode:\\[?${name}\\b`);
}

const RESTORED = {
  named: {
    name: "a file with a path: regular, a directory, a link or name (O_PATH)",
    type: fd_types.REG,
    state: "path, flags, position; content of deleted ones",
  },
  device: {
    name: "a block device, or a character device without a state of its own",
    type: fd_types.REG,
    state: "path, flags, position; the device number has to be the same",
  },
  tun: {
    name: "a network device that the program serves (tun, tap)",
    type: fd_types.REG,
    state: "see [Network devices](limits.md#network-devices)",
  },
  external: {
    name: "a file of the outside (`--external file[...]`)",
    type: fd_types.REG,
    state: "given by `--inherit-fd`",
  },
  pipe: {
    name: "a pipe",
    link: /^pipe:\[\d+\]$/,
    type: fd_types.PIPE,
    state: "content, packets, size, owner, each end's flags",
  },
  "external pipe": {
    name: "a pipe that leads outside (`--external pipe:[...]`)",
    type: fd_types.PIPE,
    state: "given by `--inherit-fd`",
  },
  fifo: {
    name: "a fifo",
    type: fd_types.FIFO,
    state: "content, packets, size, readers that wait for a writer",
  },
  eventfd: {
    name: "an eventfd",
    link: anonymous("eventfd"),
    type: fd_types.EVENTFD,
    state: "count, EFD_SEMAPHORE",
  },
  timerfd: {
    name: "a timerfd",
    link: anonymous("timerfd"),
    type: fd_types.TIMERFD,
    state: "clock, time left, interval, expirations, flags",
  },
  signalfd: {
    name: "a signalfd",
    link: anonymous("signalfd"),
    type: fd_types.SIGNALFD,
    state: "signals",
  },
  epoll: {
    name: "an epoll instance",
    link: anonymous("eventpoll"),
    type: fd_types.EVENTPOLL,
    state: "all it watches, also by numbers that were closed or used again; " +
      "busy polling",
  },
  inotify: {
    name: "an inotify instance",
    link: /^anon_inode:inotify$/,
    type: fd_types.INOTIFY,
    state: "watches by their numbers; unread events are reported as lost",
  },
  fanotify: {
    name: "a fanotify group",
    link: anonymous("fanotify"),
    type: fd_types.FANOTIFY,
    state: "marks and ignored masks; unread events are reported as lost",
  },
  memfd: {
    name: "a memfd",
    link: /^\/memfd:/,
    type: fd_types.MEMFD,
    state: "content, name, seals, mode, owner, size of pages",
  },
  pidfd: {
    name: "a pidfd",
    // Some kernels name it by its inode.
    link: /^(anon_inode:\[pidfd\]|pidfd:\[\d+\])$/,
    type: fd_types.PIDFD,
    state: "of processes and threads of the tree, also of those that are gone",
  },
  "bpf map": {
    name: "a map of eBPF",
    link: anonymous("bpf-map"),
    type: fd_types.BPFMAP,
    state: "content, name, flags, frozen; arrays and hash tables without BTF",
  },
  queue: {
    name: "a POSIX message queue",
    type: fd_types.REG,
    state: "name, flags; where the host has it no more: messages, owner, mode",
  },
  io_uring: {
    name: "an io_uring",
    link: anonymous("io_uring"),
    type: fd_types.REG,
    state: "rings with what is in them, registered files, buffers and " +
      "eventfd; not while requests are under way",
  },
  namespace: {
    name: "a namespace",
    link: /^(cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]$/,
    type: fd_types.NS,
    state: "those that the program is in",
  },
} as const satisfies Record<string, Kind>;

/** Kinds that are sockets or terminals: their modules tell of each. */
const OF_OTHER_MODULES = {
  socket: {
    name: "a socket",
    link: /^socket:\[\d+\]$/,
    state: "see [Sockets](limits.md#sockets)",
  },
  terminal: {
    name: "a terminal of the outside (`--shell-job`)",
    type: fd_types.TTY,
    state: "given by the one who restores",
  },
  pty: {
    name: "a pseudo terminal of the program's own",
    type: fd_types.TTY,
    state: "see [Terminals](limits.md#terminals)",
  },
  "dead pty": {
    name: "a pseudo terminal whose master is closed",
    type: fd_types.TTY,
    state: "flags, number",
  },
} as const satisfies Record<string, Kind>;

const REFUSED = {
  userfaultfd: {
    name: "a userfaultfd",
    link: anonymous("userfaultfd"),
    state: "who handles the page faults of its memory cannot be put back in " +
      "between",
    remedy: "let the program close it first",
  },
  "bpf program": {
    name: "a program of eBPF",
    link: anonymous("bpf-prog"),
    state: "the kernel does not give its instructions as they were loaded",
    remedy: "let the program load it again, or pin it in a bpf file system " +
      "and close it",
  },
  "bpf link": {
    name: "a link of eBPF",
    link: anonymous("bpf[_-]link"),
    state: "what a program of eBPF is attached to belongs to the host",
    remedy: "pin it in a bpf file system and close it",
  },
  btf: {
    name: "type information of eBPF (BTF)",
    link: anonymous("btf"),
    state: "it belongs to programs of eBPF, which cannot be saved",
    remedy: "let the program close it once its programs are loaded",
  },
  perf: {
    name: "a performance counter (perf_event_open(2))",
    link: anonymous("perf_event"),
    state: "counters of the hardware and of other tasks cannot be saved",
    remedy: "end the profiler",
  },
  landlock: {
    name: "a ruleset of Landlock",
    link: anonymous("landlock-ruleset"),
    state: "the kernel tells nobody which rules are in it",
    remedy: "let the program close it once it is enforced",
  },
  secret: {
    name: "secret memory (memfd_secret(2))",
    link: /^\/secretmem \(deleted\)$/,
    state: "the kernel hides its content from everybody but the program",
  },
  mount: {
    name: "a mount that is being made (fsopen(2))",
    link: anonymous("fscontext"),
    state: "what was told of it so far cannot be asked for",
    remedy: "dump again when it is mounted",
  },
  virtual: {
    name: "a virtual machine (KVM)",
    link: /^anon_inode:kvm-/,
    state: "its processors and memory are in the kernel",
  },
  seccomp: {
    name: "a listener for seccomp filters",
    link: /^anon_inode:seccomp notify$/,
    state: "calls of another program wait for its answers",
  },
  buffer: {
    name: "a buffer that devices share (dma-buf)",
    link: /^(anon_inode:dmabuf|\/dmabuf:)/,
    state: "it is memory of a device",
  },
  other: {
    name: "a kernel object",
    link: /^[a-z_]+:/,
    state: "ckpt does not know this kind",
  },
} as const satisfies Record<string, Kind>;

export const KINDS = { ...RESTORED, ...OF_OTHER_MODULES, ...REFUSED };

/** The types of files.img that are restored, but those of sockets. */
export const RESTORED_TYPES: ReadonlySet<number> = new Set(
  Object.values<Kind>(KINDS).flatMap(({ type }) =>
    type === undefined ? [] : [type]
  ),
);

/**
 * Why a descriptor with such a link is refused, whatever it holds; undefined:
 * that is not told by its link.
 */
export function refusalOfLink(
  link: string,
): { why: string; remedy?: string } | undefined {
  if (!ANY_REFUSED.test(link)) return undefined;
  for (const { link: form, name, state, ...rest } of refused()) {
    if (!form!.test(link)) continue;
    return { why: `${name} is not supported: ${state}`, ...rest };
  }
  return undefined;
}

function refused(): Kind[] {
  return Object.values<Kind>(REFUSED);
}

/** All that they show at once: most links are none of them. */
const ANY_REFUSED = new RegExp(
  refused().map(({ link }) => link!.source).join("|"),
);
