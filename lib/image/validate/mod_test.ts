import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../../error.ts";
import { readImageSet } from "../image_set.ts";
import { fd_types } from "../schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  signalInfo,
  writeWithManifest,
} from "../testing/minimal_image.ts";
import { validateImageSet } from "./mod.ts";

async function inImage(
  change: (image: MinimalImage) => void,
  test: (directory: string) => void | Promise<void>,
) {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = minimalImage();
    change(image);
    await writeWithManifest(directory, image);
    await test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("the minimal image has nothing wrong", () =>
  inImage(() => {}, (directory) => {
    validateImageSet(readImageSet(directory));
  }));

/** An epoll as descriptor 3 that watches another one. */
function watch(image: MinimalImage, tfd: number) {
  const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };
  const target = { id: 0, tfd, events: 1, data: 0n };
  const epfd = { id: 5, flags: 0, fown, tfd: [target] };
  image.files.push({ type: fd_types.EVENTPOLL, id: 5, epfd });
  image.fdinfo.push({ id: 5, flags: 0, type: fd_types.EVENTPOLL, fd: 3 });
}

Deno.test("an epoll that watches an open descriptor is fine", () =>
  inImage((image) => watch(image, 2), (directory) => {
    validateImageSet(readImageSet(directory));
  }));

const stranger = { ...minimalImage().files[1], id: 9 };

/** What is changed, and how the complaint begins: file, entry and field. */
const DAMAGES: [(image: MinimalImage) => void, string][] = [
  [
    (i) => delete i.inventory.fdinfo_per_id,
    "inventory.img, entry 0, field fdinfo_per_id",
  ],
  [
    (i) => delete i.inventory.root_ids,
    "inventory.img, entry 0, field root_ids",
  ],
  [
    (i) => i.inventory.root_cg_set = 0,
    "inventory.img, entry 0, field root_cg_set",
  ],
  [
    (i) => delete i.inventory.root_ids!.net_ns_id,
    "inventory.img, entry 0, field root_ids.net_ns_id",
  ],
  [(i) => i.pstree = [], "pstree.img: holds no process"],
  [(i) => i.pstree[0].ppid = 7, "pstree.img, entry 0, field ppid"],
  [
    (i) => i.pstree.push(i.pstree[0]),
    "pstree.img, entry 1, field pid: 4242 is there twice",
  ],
  [(i) => i.pstree[0].threads = [], "pstree.img, entry 0, field threads"],
  [
    (i) => i.pstree[0].threads = [5, 4242],
    "pstree.img, entry 0, field threads: does not begin",
  ],
  [
    (i) => i.pstree[0].threads = [4242, 4242],
    "pstree.img, entry 0, field threads: 4242 is taken",
  ],
  [(i) => i.pstree[0].threads = [4242, 4243], "core-4243.img: is missing"],
  [(i) => i.pstree[0].pid = 1, "core-1.img: is missing"],
  [(i) => i.ids.files_id = 1, "ids-4242.img, entry 0, field files_id"],
  [(i) => i.ids.pid_ns_id = 9, "ids-4242.img, entry 0, field pid_ns_id"],
  [(i) => i.ids.uts_ns_id = 9, "utsns-9.img: is missing"],
  [(i) => i.core.mtype = 3, "core-4242.img, entry 0, field mtype"],
  [(i) => delete i.core.tc, "core-4242.img, entry 0, field tc: is missing"],
  [
    (i) => delete i.core.thread_core,
    "core-4242.img, entry 0, field thread_core",
  ],
  [
    (i) => delete i.core.thread_info,
    "core-4242.img, entry 0, field thread_info",
  ],
  [
    (i) => delete i.core.thread_core!.creds,
    "core-4242.img, entry 0, field thread_core.creds",
  ],
  [
    (i) => i.core.thread_core!.creds!.cap_eff = [1],
    "core-4242.img, entry 0, field thread_core.creds.cap_eff",
  ],
  [
    (i) => i.core.thread_core!.cg_set = 2,
    "core-4242.img, entry 0, field thread_core.cg_set",
  ],
  [
    (i) => i.core.thread_core!.seccomp_mode = 2,
    "core-4242.img, entry 0, field thread_core.seccomp_filter",
  ],
  [
    (i) => i.core.thread_core!.sched_prio = 1,
    "core-4242.img, entry 0, field thread_core.sched_prio",
  ],
  [
    (i) => i.core.thread_core!.sched_nice = 20,
    "core-4242.img, entry 0, field thread_core.sched_nice",
  ],
  [
    (i) => i.core.thread_core!.futex_rla_len = 23,
    "core-4242.img, entry 0, field thread_core.futex_rla_len",
  ],
  [
    (i) => i.core.thread_core!.pdeath_sig = 65,
    "core-4242.img, entry 0, field thread_core.pdeath_sig",
  ],
  [
    (i) => i.core.tc!.task_state = 6,
    "core-4242.img, entry 0, field tc.task_state",
  ],
  [(i) => delete i.core.tc!.timers, "core-4242.img, entry 0, field tc.timers"],
  [
    (i) =>
      i.core.tc!.timers!.real = {
        isec: 0n,
        iusec: 1_000_000n,
        vsec: 0n,
        vusec: 0n,
      },
    "core-4242.img, entry 0, field tc.timers.real",
  ],
  [
    (i) => delete i.core.tc!.rlimits,
    "core-4242.img, entry 0, field tc.rlimits",
  ],
  [
    (i) => i.core.tc!.sigactions.pop(),
    "core-4242.img, entry 0, field tc.sigactions",
  ],
  [
    (i) =>
      i.core.tc!.signals_s!.signals = [signalInfo(10), {
        siginfo: new Uint8Array(127),
      }],
    "core-4242.img, entry 0, field tc.signals_s.signals[1]",
  ],
  [
    (i) => i.core.thread_info!.gpregs.cs = 0n,
    "core-4242.img, entry 0, field thread_info.gpregs.cs",
  ],
  [
    (i) => i.core.thread_info!.fpregs.st_space.pop(),
    "core-4242.img, entry 0, field thread_info.fpregs.st_space",
  ],
  [
    (i) => i.core.thread_info!.fpregs.xsave!.pkru.pop(),
    "core-4242.img, entry 0, field thread_info.fpregs.xsave.pkru",
  ],
  [
    (i) => i.seccomp.seccomp_filters = [{ filter: new Uint8Array(7) }],
    "seccomp.img, entry 0, field seccomp_filters[0].filter",
  ],
  [
    (i) => i.seccomp.seccomp_filters = [{ filter: new Uint8Array(8), prev: 0 }],
    "seccomp.img, entry 0, field seccomp_filters[0].prev",
  ],
  [(i) => i.mm.vmas = [], "mm-4242.img, entry 0, field vmas: is empty"],
  [(i) => i.mm.vmas.reverse(), "mm-4242.img, entry 0, field vmas[1].start"],
  [
    (i) => i.mm.vmas[1].start = 0x400000n,
    "mm-4242.img, entry 0, field vmas[1].start",
  ],
  [(i) => i.mm.vmas[5].end += 1n, "mm-4242.img, entry 0, field vmas[5]:"],
  [
    (i) => i.mm.vmas[5].end = 0x800000000000n,
    "mm-4242.img, entry 0, field vmas[5].end",
  ],
  [
    (i) => i.mm.vmas[5].status |= 1 << 30,
    "mm-4242.img, entry 0, field vmas[5].status",
  ],
  [
    (i) => i.mm.vmas[5].flags = 0x20,
    "mm-4242.img, entry 0, field vmas[5].flags: is neither",
  ],
  [
    (i) => i.mm.vmas[5].flags = 2,
    "mm-4242.img, entry 0, field vmas[5].flags: lacks",
  ],
  [(i) => i.mm.vmas[5].madv = 1n, "mm-4242.img, entry 0, field vmas[5].madv"],
  [
    (i) => i.mm.vmas[0].shmid = 77n,
    "mm-4242.img, entry 0, field vmas[0].shmid",
  ],
  [
    (i) => i.mm.vmas.splice(3, 1),
    "mm-4242.img, entry 0, field vmas: has vdso, no vvar",
  ],
  [(i) => i.mm.vmas[4].prot = 1, "mm-4242.img, entry 0, field vmas[4].prot"],
  [(i) => i.mm.exe_file_id = 77, "mm-4242.img, entry 0, field exe_file_id"],
  [(i) => i.mm.mm_brk = 0n, "mm-4242.img, entry 0, field mm_brk"],
  [
    (i) => i.mm.mm_env_end = 1n << 47n,
    "mm-4242.img, entry 0, field mm_env_end",
  ],
  [
    (i) => i.mm.mm_saved_auxv = new Array(46).fill(0n),
    "mm-4242.img, entry 0, field mm_saved_auxv",
  ],
  [
    (i) => i.mm.aios = [{ id: 4096n, nr_req: 1, ring_len: 4096 }],
    "mm-4242.img, entry 0, field aios[0].id",
  ],
  [
    (i) =>
      i.mm.vmas[5] = { ...i.mm.vmas[5], status: 0x101, shmid: 5n, flags: 0x21 },
    "pagemap-shmem-5.img: is missing",
  ],
  [(i) => i.pagemap.entries = [], "pagemap-4242.img: has no page"],
  [
    (i) => i.pagemap.entries.reverse(),
    "pagemap-4242.img, entry 2, field vaddr",
  ],
  [
    (i) => i.pagemap.entries[0].vaddr += 1n,
    "pagemap-4242.img, entry 1, field vaddr: is not page aligned",
  ],
  [
    (i) => i.pagemap.entries[0].vaddr = 0x1000n,
    "pagemap-4242.img, entry 1, field vaddr: 0x1000 is in no private area",
  ],
  [
    (i) => i.pagemap.entries[0].vaddr = 0x7fd96a8a7000n,
    "pagemap-4242.img, entry 1, field vaddr: 0x7fd96a8a7000 is in no",
  ],
  [
    (i) => i.pagemap.entries[2].nr_pages = 1n << 60n,
    "pages-1.img: is 20480 bytes long",
  ],
  [
    (i) => i.pagemap.entries[0].nr_pages = 0n,
    "pagemap-4242.img, entry 1, field nr_pages",
  ],
  [
    (i) => i.pagemap.entries[0].flags = 0,
    "pagemap-4242.img, entry 1, field flags: says that the pages are nowhere",
  ],
  [
    (i) => i.pagemap.entries[0].flags = 1,
    "pagemap-4242.img, entry 1, field flags: says the parent",
  ],
  [(i) => i.pages = i.pages.subarray(1), "pages-1.img: is 20479 bytes long"],
  [
    (i) => i.files.push(i.files[0]),
    "files.img, entry 4, field id: 1 is there twice",
  ],
  [(i) => delete i.files[0].reg, "files.img, entry 0, field reg: is missing"],
  [(i) => i.files.push(stranger), "files.img, entry 4, field reg.id"],
  [
    (i) => i.files[1].type = fd_types.PIPE,
    "files.img, entry 1, field reg: does not belong",
  ],
  [(i) => i.files[1].type = 99, "files.img, entry 1, field type"],
  [
    (i) => i.files[1].reg!.name = "dev/null",
    "files.img, entry 1, field reg.name",
  ],
  [(i) => i.files[1].reg!.flags = 0o100, "files.img, entry 1, field reg.flags"],
  [
    (i) => i.fdinfo[1].fd = 0,
    "fdinfo-2.img, entry 1, field fd: 0 is there twice",
  ],
  [(i) => i.fdinfo[1].id = 77, "fdinfo-2.img, entry 1, field id"],
  [(i) => i.fdinfo[1].flags = 2, "fdinfo-2.img, entry 1, field flags"],
  [(i) => watch(i, 99), "files.img, field epfd.tfd: epoll 5 watches 1"],
  [(i) => i.fs.cwd_id = 77, "fs-4242.img, entry 0, field cwd_id"],
  [(i) => i.fs.root_id = 77, "fs-4242.img, entry 0, field root_id"],
  [(i) => i.fs.umask = 0o1000, "fs-4242.img, entry 0, field umask"],
];

for (const [change, complaint] of DAMAGES) {
  Deno.test(`refuses an image for: ${complaint}`, () =>
    inImage(change, (directory) => {
      const set = readImageSet(directory);
      const error = assertThrows(() => validateImageSet(set), CkptError);
      const told = error.reasons.map(({ object, why }) => `${object}: ${why}`);
      assertEquals(
        told.some((reason) => reason.startsWith(complaint)),
        true,
        told.join("\n"),
      );
    }));
}

Deno.test("tells everything that is wrong at once", () =>
  inImage((image) => {
    image.core.mtype = 3;
    image.fs.cwd_id = 77;
    image.mm.vmas[5].end += 1n;
  }, (directory) => {
    Deno.removeSync(`${directory}/pages-1.img`);
    Deno.removeSync(`${directory}/ckpt-manifest.json`);
    const set = readImageSet(directory);
    const { reasons } = assertThrows(() => validateImageSet(set), CkptError);
    assertEquals(
      reasons.map((reason) => reason.object).sort(),
      [
        "core-4242.img, entry 0, field mtype",
        "fs-4242.img, entry 0, field cwd_id",
        "mm-4242.img, entry 0, field vmas[5]",
        "pages-1.img",
      ],
    );
  }));
