/** The same as in inherit_test.ts, but the kernel executes the programs. */
import { assert, assertEquals } from "@std/assert";
import { AgentProcess, type AgentThread } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import { close, O, open, pread, syscall } from "../ffi/syscall.ts";
import { seededRandom } from "../image/testing/random.ts";
import type { reg_file_entry, vma_entry } from "../image/schema.gen.ts";
import { isPrivate, VMA_STATUS } from "../image/vma_status.ts";
import { readMaps, readSmaps } from "../proc/read.ts";
import { freePid } from "../task/testing/agent_task.ts";
import { realAreas } from "./areas.ts";
import { inheritMemory } from "./inherit.ts";
import { type RebuildInput, rebuildMemory, unmapAllBut } from "./rebuild.ts";
import {
  type Contents,
  type Family,
  randomFamily,
} from "./testing/families.ts";
import { AGENT, isKernels, PAGE, randomInput } from "./testing/layouts.ts";
import { MAP, planVmas } from "./vma.ts";

/** A page of text that begins with what it is called. */
function pageOf(text: string): Uint8Array {
  const page = new Uint8Array(Number(PAGE)).fill(0x2e);
  page.set(new TextEncoder().encode(`${text} `));
  return page;
}

function textOf(page: Uint8Array): string {
  const text = new TextDecoder().decode(page);
  return text.startsWith("\0") ? "" : text.slice(0, text.indexOf(" "));
}

/** Writes the pages in the order of their addresses. */
function writeImage(path: string, contents: Contents): number {
  using file = Deno.openSync(path, { write: true, create: true });
  const sorted = [...contents].sort(([a], [b]) => a < b ? -1 : 1);
  for (const [, text] of sorted) file.writeSync(pageOf(text));
  return open(path, O.RDONLY);
}

/** Only what the kernel lets a program have. */
function possible(random: () => number, directory: string): RebuildInput {
  const input = randomInput(random);
  const files = new Map<number, reg_file_entry>();
  // randomInput() makes a map.
  const all = input.files as ReadonlyMap<number, reg_file_entry>;
  for (const [id, file] of all) {
    const path = `${directory}/file-${id}`;
    const contents: Contents = new Map();
    for (let i = 0n; i < 40n; i++) contents.set(i, `${path}:${i}`);
    close(writeImage(path, contents));
    files.set(id, { ...file, name: path });
  }
  const gone: vma_entry[] = [];
  for (const vma of input.mm.vmas) {
    const anonymous = (vma.status & VMA_STATUS.ANON_PRIVATE) !== 0;
    // The kernel's own areas have other sizes; all else would move with them.
    if (isKernels(vma)) gone.push(vma);
    const droppable = (vma.flags & MAP.droppable) !== 0;
    if (!anonymous) vma.madv = (vma.madv ?? 0n) & ~(1n << 18n);
    // The kernel merges private pages only, and says nothing.
    if ((vma.flags & MAP.shared) !== 0) vma.madv! &= ~(1n << 12n);
    if (droppable) {
      vma.madv = 1n << 16n | 1n << 18n;
      vma.flags &= ~(MAP.growsdown | MAP.locked);
    }
    // A shared mapping that is written needs a file that is open for it.
    if ((vma.status & VMA_STATUS.FILE_SHARED) !== 0 && vma.fdflags === 0) {
      vma.prot &= ~2;
    }
    if (vma.madv === 0n) vma.madv = undefined;
  }
  const isGone = (at: bigint) =>
    gone.some(({ start, end }) => start <= at && at < end);
  return {
    ...input,
    files,
    mm: {
      ...input.mm,
      vmas: input.mm.vmas.filter((vma) =>
        !gone.includes(vma) && (vma.status & VMA_STATUS.VSYSCALL) === 0
      ),
    },
    pages: input.pages.filter(({ vaddr }) => !isGone(vaddr)),
  };
}

/** Whether the kernel gives names to areas (CONFIG_ANON_VMA_NAME). */
function knowsNames(): boolean {
  const start = syscall("mmap", 0n, PAGE, 3n, 0x22n, ~0n & 0xffffffffn);
  try {
    syscall("prctl", 0x53564d41n, 0n, start, PAGE, 0n);
    return true;
  } catch {
    return false;
  } finally {
    syscall("munmap", start, PAGE);
  }
}

function withoutNames(extensions: RebuildInput["extensions"]) {
  return new Map(
    [...extensions].map(([start, area]) => [start, {
      ...area,
      name: undefined,
    }]),
  );
}

/** Descriptors of shared memory objects of 16 pages. */
function makeObjects(ids: Iterable<bigint>): Map<bigint, number> {
  const fds = new Map<bigint, number>();
  for (const id of ids) {
    const start = syscall("mmap", 0n, 16n * PAGE, 3n, 0x21n, ~0n & 0xffffffffn);
    const end = start + 16n * PAGE;
    fds.set(
      id,
      open(
        `/proc/self/map_files/${start.toString(16)}-${end.toString(16)}`,
        O.RDWR,
      ),
    );
    syscall("munmap", start, 16n * PAGE);
  }
  return fds;
}

class KernelFamily implements Disposable {
  readonly #fds: number[] = [];
  readonly #agents: AgentProcess[] = [];
  readonly parent: AgentProcess;
  readonly child: AgentProcess;

  constructor(family: Family, directory: string) {
    const parentFd = writeImage(`${directory}/parent`, family.parentPages);
    const childFd = writeImage(`${directory}/child`, family.childPages);
    const ids = [family.parent, family.child].flatMap(({ mm }) =>
      mm.vmas.filter(({ status }) => status & VMA_STATUS.ANON_SHARED)
        .map(({ shmid }) => shmid)
    );
    const shared = makeObjects(new Set(ids));
    this.#fds.push(parentFd, childFd, ...shared.values());
    this.parent = AgentProcess.start({
      pid: freePid(),
      parent: "ckpt",
      keep: this.#fds,
      openFiles: [1024n, 1024n],
    });
    this.#agents.push(this.parent);
    this.#moveAgent();
    const rebuilding = new Program();
    unmapAllBut(rebuilding, AGENT);
    rebuildMemory(rebuilding, { ...family.parent, pagesFd: parentFd, shared });
    this.#run(this.parent, rebuilding);
    const forking = new Program();
    const SIGCHLD = 17;
    const args = forking.words([0, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 0]);
    forking.call("clone", [args, 88, 0], "forking");
    const [pid] = this.#run(this.parent, forking, 1);
    this.child = this.parent.adopt(pid);
    this.#agents.push(this.child);
    const inheriting = new Program();
    inheritMemory(inheriting, { ...family.child, pagesFd: childFd, shared });
    this.#run(this.child, inheriting);
  }

  #moveAgent(): void {
    const { parent } = this;
    const stack = readMaps(parent.pid).find(({ path }) => path === "[stack]")!;
    const program = new Program();
    const flags = MAP.private | MAP.anonymous | MAP.fixedNoreplace;
    program.call(
      "mmap",
      [AGENT.start, AGENT.end - AGENT.start, 7, flags, -1, 0],
      "mapping memory for the agent",
    );
    const leader = { tid: parent.pid, stack: BigInt(stack.end - 4096) };
    const address = BigInt(stack.start);
    parent.load(leader, program, address);
    parent.resume(leader);
    parent.wait(leader, program, address);
    parent.moveTo(BigInt(AGENT.start));
  }

  #run(agent: AgentProcess, program: Program, room = 0): Int32Array {
    const start = BigInt(AGENT.start);
    const leader: AgentThread = { tid: agent.pid, stack: start + 0x3fc0n };
    const address = start + 0x4000n;
    assert(program.size < AGENT.end - AGENT.start - 0x4000);
    agent.load(leader, program, address);
    agent.resume(leader);
    return agent.wait(leader, program, address, room);
  }

  [Symbol.dispose](): void {
    for (const agent of this.#agents.toReversed()) agent[Symbol.dispose]();
    for (const fd of this.#fds) close(fd);
  }
}

/** What smaps shows of an area and the image has, too. */
function shown(
  vma: vma_entry,
  name: string | undefined,
  lockOnFault: boolean,
  file: string | undefined,
) {
  const { start, end, prot, flags, madv, pgoff } = vma;
  const isFile = (flags & MAP.anonymous) === 0;
  return {
    start,
    end,
    prot,
    flags,
    madv: madv ?? 0n,
    lockOnFault,
    name,
    file,
    pgoff: isFile || (vma.status & VMA_STATUS.ANON_SHARED) !== 0 ? pgoff : 0n,
  };
}

type Shown = ReturnType<typeof shown>;

/** Areas of files that follow on are one for the kernel, or two. */
function mergedFiles(areas: Shown[]): Shown[] {
  const merged: Shown[] = [];
  for (const area of areas) {
    const last = merged.at(-1);
    if (
      last !== undefined && last.end === area.start &&
      area.pgoff !== 0n && last.pgoff + last.end - last.start === area.pgoff &&
      JSON.stringify({ ...last, start: 0, end: 0, pgoff: 0, madv: 0 }) ===
        JSON.stringify({ ...area, start: 0, end: 0, pgoff: 0, madv: 0 }) &&
      last.madv === area.madv
    ) last.end = area.end;
    else merged.push({ ...area });
  }
  return merged;
}

function wantedAreas({ mm, files, extensions }: RebuildInput): Shown[] {
  return mergedFiles(
    realAreas(mm).map((vma) => {
      const extension = extensions.get(vma.start);
      const locked = (vma.flags & MAP.locked) !== 0;
      return shown(
        vma,
        extension?.name,
        locked && (extension?.lock_on_fault ?? false),
        (vma.flags & MAP.anonymous) === 0
          ? files.get(Number(vma.shmid))!.name
          : undefined,
      );
    }),
  );
}

function foundAreas(pid: number): Shown[] {
  const mappings = readSmaps(pid).filter(({ start }) =>
    (start < AGENT.start || start >= AGENT.end) && start < 2 ** 60
  );
  const { vmas, reasons } = planVmas(pid, mappings);
  assertEquals(reasons, []);
  return mergedFiles(
    vmas.map(({ entry, name, lockOnFault, path }) =>
      shown(entry, name, lockOnFault, path)
    ),
  );
}

function frame(pid: number, at: bigint): bigint {
  const word = new Uint8Array(8);
  const fd = open(`/proc/${pid}/pagemap`, O.RDONLY);
  pread(fd, word, at / PAGE * 8n);
  close(fd);
  const entry = new DataView(word.buffer).getBigUint64(0, true);
  return entry >> 63n === 1n ? entry & ((1n << 55n) - 1n) : 0n;
}

/** Compares the content of private memory, but for guard pages. */
function checkContent(
  agent: AgentProcess,
  { mm, files }: RebuildInput,
  contents: Contents,
): void {
  const guards = mm.vmas.filter(({ status }) => status & VMA_STATUS.GUARD);
  for (const vma of realAreas(mm)) {
    if (!isPrivate(vma)) continue;
    for (let at = vma.start; at < vma.end; at += PAGE) {
      if (guards.some(({ start, end }) => start <= at && at < end)) continue;
      const file = (vma.flags & MAP.anonymous) === 0
        ? `${files.get(Number(vma.shmid))!.name}:${
          (vma.pgoff + at - vma.start) / PAGE
        }`
        : "";
      assertEquals(
        textOf(agent.memory.read(at, Number(PAGE))),
        contents.get(at) ?? file,
        at.toString(16),
      );
    }
  }
}

Deno.test("the kernel gives random parents and children the memory they had, and shares it", () => {
  const random = seededRandom(5);
  const names = knowsNames();
  let shared = 0;
  for (let round = 0; round < 25; round++) {
    const directory = Deno.makeTempDirSync();
    try {
      const family = randomFamily(
        random,
        (random) => possible(random, directory),
      );
      if (!names) {
        const { parent, child } = family;
        parent.extensions = withoutNames(parent.extensions);
        child.extensions = withoutNames(child.extensions);
        child.parent.extensions = parent.extensions;
      }
      using kernel = new KernelFamily(family, directory);
      const { parent, child } = kernel;
      const what = `round ${round}`;
      assertEquals(foundAreas(parent.pid), wantedAreas(family.parent), what);
      assertEquals(foundAreas(child.pid), wantedAreas(family.child), what);
      checkContent(parent, family.parent, family.parentPages);
      checkContent(child, family.child, family.childPages);
      for (const at of family.shared) {
        assertEquals(
          frame(child.pid, at),
          frame(parent.pid, at),
          `round ${round}: ${at.toString(16)} is no longer shared`,
        );
      }
      shared += family.shared.size;
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  }
  assert(shared > 100, `${shared} shared pages`);
});
