/**
 * The smallest complete image: a static program in pause(2), with its standard
 * streams on /dev/null. For tests, which change what they are about.
 */

import { encodeImage } from "../framing.ts";
import { ImageWriter } from "../image_writer.ts";
import {
  type Content,
  type ImageKind,
  imageName,
  type Pagemap,
} from "../kinds.ts";
import { PAGE_SIZE } from "../pagemap.ts";
import {
  type core_entry,
  core_entry_march,
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type fs_entry,
  type inventory_entry,
  lsmtype,
  type mm_entry,
  type pstree_entry,
  type seccomp_entry,
  type siginfo_entry,
  type task_kobj_ids_entry,
  type timens_entry,
  type vma_entry,
} from "../schema.gen.ts";

/** Every file of the image; tests change values in place before writing it. */
export interface MinimalImage {
  pid: number;
  inventory: inventory_entry;
  pstree: pstree_entry[];
  ids: task_kobj_ids_entry;
  core: core_entry;
  mm: mm_entry;
  fs: fs_entry;
  fdinfo: fdinfo_entry[];
  files: file_entry[];
  seccomp: seccomp_entry;
  timens: timens_entry;
  pagemap: Pagemap;
  /** The content of pages-1.img. */
  pages: Uint8Array;
}

/** A new image that differs from others by nothing but the pid. */
export function minimalImage(pid = 4242): MinimalImage {
  return {
    pid,
    inventory: {
      img_version: 2,
      fdinfo_per_id: true,
      root_ids: kernelObjects(1),
      ns_per_id: true,
      root_cg_set: 1,
      lsmtype: lsmtype.NO_LSM,
      network_lock_method: 0,
      plugins_entry: { plugins: [] },
      dump_criu_run_id: "1f63e2f6-0fb4-4740-9469-f4a4a05f0a69",
    },
    pstree: [{ pid, ppid: 0, pgid: pid, sid: pid, threads: [pid] }],
    ids: kernelObjects(2),
    core: leaderCore(),
    mm: addressSpace(),
    fs: { cwd_id: 3, root_id: 4, umask: 0o22 },
    fdinfo: [0, 1, 2].map((fd) => ({
      id: 2,
      flags: 0,
      type: fd_types.REG,
      fd,
    })),
    files: [
      regularFile(1, 0, "/opt/demo/tiny", 0o100755),
      regularFile(2, 0o100002, "/dev/null", 0o020666),
      regularFile(3, 0, "/srv", 0o040755),
      regularFile(4, 0, "/", 0o040755),
    ],
    seccomp: { seccomp_filters: [] },
    timens: {
      monotonic: { tv_sec: 1231n, tv_nsec: 37399938n },
      boottime: { tv_sec: 1231n, tv_nsec: 37399986n },
    },
    pagemap: {
      pages_id: 1,
      entries: [
        { vaddr: 0x401000n, compat_nr_pages: 0, flags: 4, nr_pages: 1n },
        { vaddr: 0x7fd96a8ad000n, compat_nr_pages: 0, flags: 4, nr_pages: 2n },
        { vaddr: 0x7ffd063bf000n, compat_nr_pages: 0, flags: 6, nr_pages: 2n },
      ],
    },
    pages: new Uint8Array(5 * PAGE_SIZE).fill(0xcc),
  };
}

/**
 * Another process, for a tree: with the same files, and all else of its own. Of
 * what a tree has once, its image has no part.
 */
export function minimalChild(
  pid: number,
  place: { ppid: number; pgid: number; sid: number },
): MinimalImage {
  const image = minimalImage(pid);
  image.pstree = [{ pid, ...place, threads: [pid] }];
  image.ids = kernelObjects(pid);
  image.pagemap.pages_id = pid;
  return image;
}

/** task_core_entry.task_state of a process that has ended. */
const DEAD = 2;

/** A process that has ended; nothing else than its core image is left of it. */
export function endImage(image: MinimalImage, status: number): void {
  const { mtype, tc } = image.core;
  image.core = {
    mtype,
    tc: { ...tc!, task_state: DEAD, exit_code: status, sigactions: [] },
  };
}

export type ImagePart = [ImageKind, number | undefined, Content<ImageKind>];

/** Writes the images of a tree, the root first, without a manifest. */
export function writeTree(
  directory: string,
  images: readonly MinimalImage[],
  more: readonly ImagePart[] = [],
): void {
  const [root, ...children] = images;
  const ended = ({ core }: MinimalImage) => core.tc?.task_state === DEAD;
  const pstree = images.flatMap(({ pstree }) => pstree);
  const parts = [
    ...imageParts({ ...root, pstree }),
    ...children.flatMap((child) =>
      ended(child)
        ? processParts(child).filter(([kind]) => kind === "core")
        : processParts(child)
    ),
    ...more,
  ];
  for (const [kind, index, content] of parts) {
    const path = `${directory}/${imageName(kind, index)}`;
    Deno.writeFileSync(path, encodeImage(kind, content));
  }
  for (const { pagemap, pages } of images.filter((image) => !ended(image))) {
    Deno.writeFileSync(`${directory}/pages-${pagemap.pages_id}.img`, pages);
  }
}

/** Every framed file: kind, number and content. The inventory is the last. */
export function imageParts(image: MinimalImage): ImagePart[] {
  return [
    ["pstree", undefined, image.pstree],
    ...processParts(image),
    ["files", undefined, image.files],
    ["seccomp", undefined, image.seccomp],
    ["timens", 0, image.timens],
    ["inventory", undefined, image.inventory],
  ];
}

/** What belongs to one process. */
function processParts(image: MinimalImage): ImagePart[] {
  const { pid } = image;
  return [
    ["ids", pid, image.ids],
    ["core", pid, image.core],
    ["mm", pid, image.mm],
    ["fs", pid, image.fs],
    ["fdinfo", image.ids.files_id, image.fdinfo],
    ["pagemap", pid, image.pagemap],
  ];
}

/** Writes it as ckpt does: with a manifest. */
export async function writeWithManifest(
  directory: string,
  image: MinimalImage,
): Promise<void> {
  using writer = ImageWriter.open(directory, { replace: false });
  for (const [kind, index, content] of imageParts(image)) {
    if (kind !== "inventory") writer.write(kind, index, content);
  }
  const pages = writer.createRaw(`pages-${image.pagemap.pages_id}.img`);
  Deno.writeFileSync(pages, image.pages);
  await writer.commit(image.inventory, "0.0.0");
}

/** Writes it as CRIU does: without a manifest. */
export function writeWithoutManifest(
  directory: string,
  image: MinimalImage,
): void {
  writeTree(directory, [image]);
}

/** A siginfo_t of one signal, sent by kill(2) from process 1. */
export function signalInfo(signal: number): siginfo_entry {
  const siginfo = new Uint8Array(128);
  const view = new DataView(siginfo.buffer);
  view.setInt32(0, signal, true);
  view.setInt32(16, 1, true);
  return { siginfo };
}

function kernelObjects(own: number): task_kobj_ids_entry {
  return {
    vm_id: own,
    files_id: own,
    fs_id: own,
    sighand_id: own,
    pid_ns_id: 1,
    net_ns_id: 2,
    ipc_ns_id: 3,
    uts_ns_id: 4,
    mnt_ns_id: 6,
    user_ns_id: 7,
    cgroup_ns_id: 8,
    time_ns_id: 5,
  };
}

function regularFile(
  id: number,
  flags: number,
  name: string,
  mode: number,
): file_entry {
  const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
  return {
    type: fd_types.REG,
    id,
    reg: { id, flags, pos: 0n, fown, name, mode, build_id: [] },
  };
}

function area(
  start: bigint,
  end: bigint,
  prot: number,
  flags: number,
  status: number,
  shmid = 0n,
  pgoff = 0n,
): vma_entry {
  return { start, end, pgoff, shmid, prot, flags, status, fd: -1n };
}

function addressSpace(): mm_entry {
  return {
    mm_start_code: 0x401000n,
    mm_end_code: 0x40101en,
    mm_start_data: 0x402000n,
    mm_end_data: 0x40202cn,
    mm_start_stack: 0x7ffd063bf9c0n,
    mm_start_brk: 0x11890000n,
    mm_brk: 0x11890000n,
    mm_arg_start: 0x7ffd063c0fcan,
    mm_arg_end: 0x7ffd063c0fdfn,
    mm_env_start: 0x7ffd063c0fdfn,
    mm_env_end: 0x7ffd063c0fe3n,
    exe_file_id: 1,
    mm_saved_auxv: [33n, 0x7fd96a8ad000n, 6n, 4096n, 0n, 0n],
    vmas: [
      area(0x400000n, 0x401000n, 1, 0x2, 0x41, 1n),
      area(0x401000n, 0x402000n, 5, 0x2, 0x41, 1n, 4096n),
      area(0x402000n, 0x403000n, 1, 0x2, 0x41, 1n, 8192n),
      area(0x7fd96a8a7000n, 0x7fd96a8ad000n, 1, 0x22, 0x1201),
      area(0x7fd96a8ad000n, 0x7fd96a8af000n, 5, 0x22, 0x209),
      area(0x7ffd063a0000n, 0x7ffd063c1000n, 3, 0x122, 0x201),
      area(0xffffffffff600000n, 0xffffffffff601000n, 4, 0x22, 0x204),
    ],
    dumpable: 1,
    aios: [],
    thp_disabled: false,
  };
}

function leaderCore(): core_entry {
  const zero = { isec: 0n, iusec: 0n, vsec: 0n, vusec: 0n };
  return {
    mtype: core_entry_march.X86_64,
    thread_info: {
      clear_tid_addr: 0n,
      gpregs: {
        r15: 0n,
        r14: 0n,
        r13: 0n,
        r12: 0n,
        bp: 0n,
        bx: 0n,
        r11: 0x202n,
        r10: 0n,
        r9: 0n,
        r8: 0x22n,
        ax: 0x22n,
        cx: 0x40101cn,
        dx: 0n,
        si: 0n,
        di: 0n,
        orig_ax: 0x22n,
        ip: 0x40101an,
        cs: 0x33n,
        flags: 0x202n,
        sp: 0x7ffd063bf9c0n,
        ss: 0x2bn,
        fs_base: 0n,
        gs_base: 0n,
        ds: 0n,
        es: 0n,
        fs: 0n,
        gs: 0n,
        mode: 1,
      },
      fpregs: {
        cwd: 0x37f,
        swd: 0,
        twd: 0,
        fop: 0,
        rip: 0n,
        rdp: 0n,
        mxcsr: 0x1f80,
        mxcsr_mask: 0xffff,
        st_space: new Array(32).fill(0),
        xmm_space: new Array(64).fill(0),
        padding: [],
        xsave: {
          xstate_bv: 0x200n,
          ymmh_space: new Array(64).fill(0),
          bndreg_state: [],
          bndcsr_state: [],
          opmask_reg: [],
          zmm_upper: [],
          hi16_zmm: [],
          pkru: [0x55555554, 0],
        },
      },
      tls: [],
    },
    tc: {
      task_state: 1,
      exit_code: 0,
      personality: 0,
      flags: 0x400000,
      blk_sigset: 0n,
      comm: "tiny",
      timers: { real: zero, virt: zero, prof: zero, posix: [] },
      rlimits: {
        rlimits: Array.from({ length: 16 }, () => ({
          cur: 0xffffffffffffffffn,
          max: 0xffffffffffffffffn,
        })),
      },
      signals_s: { signals: [] },
      loginuid: 0xffffffff,
      oom_score_adj: 0,
      sigactions: Array.from({ length: 62 }, () => ({
        sigaction: 0n,
        flags: 0n,
        restorer: 0n,
        mask: 0n,
        compat_sigaction: false,
      })),
      child_subreaper: false,
    },
    thread_core: {
      futex_rla: 0n,
      futex_rla_len: 24,
      sched_nice: 0,
      sched_policy: 0,
      sas: { ss_sp: 0n, ss_size: 0n, ss_flags: 2 },
      signals_p: { signals: [] },
      creds: {
        uid: 0,
        gid: 0,
        euid: 0,
        egid: 0,
        suid: 0,
        sgid: 0,
        fsuid: 0,
        fsgid: 0,
        cap_inh: [0, 0],
        cap_prm: [0xfeffffff, 0x1ff],
        cap_eff: [0xfeffffff, 0x1ff],
        cap_bnd: [0xfeffffff, 0x1ff],
        secbits: 0,
        groups: [],
        cap_amb: [0, 0],
      },
      comm: "tiny",
      rseq_entry: { rseq_abi_pointer: 0n, rseq_abi_size: 0, signature: 0 },
      cg_set: 1,
    },
  };
}
