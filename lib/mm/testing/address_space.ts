/**
 * A model of an address space that executes the calls of a decoded program, as
 * strictly as the kernel or more so: for tests of what rebuilds memory.
 */
import { assert, assertEquals } from "@std/assert";
import {
  type DecodedOperation,
  type DecodedProgram,
  textAt,
} from "../../ffi/testing/decoded_program.ts";
import { PROT } from "../../proc/maps.ts";
import type { AddressRange } from "../hole.ts";
import { MAP } from "../vma.ts";

const PAGE = 4096n;

/** Memory that several areas may show. */
export interface ModelObject {
  readonly id: bigint;
}

export interface ModelPage {
  prot: number;
  /** As given to mmap, without MAP_FIXED. */
  flags: number;
  /** "path flags" of the file it shows. */
  file?: string;
  object?: ModelObject;
  /** Offset in the file or object. */
  pgoff: bigint;
  advice: Set<bigint>;
  /** "descriptor offset" it was filled from; "used" after a plain store. */
  content?: string;
  /** Nothing was written since it came from the parent by fork. */
  inherited?: boolean;
  guard: boolean;
  /** Flags of mlock2, when it was called. */
  locked?: bigint;
  name?: string;
  sealed: boolean;
  vdso: boolean;
}

interface OpenFile {
  path: string;
  flags: bigint;
}

const ARCH_MAP_VDSO_64 = 0x2003n;
const MADV_DONTNEED = 4n;
const MADV_DONTFORK = 10n;
const MADV_WIPEONFORK = 18n;
const MADV_GUARD_INSTALL = 102n;
const MADV_GUARD_REMOVE = 103n;
const MREMAP_MAYMOVE_FIXED = 3n;

/** Advice that an advice takes back (madvise(2)). */
const TAKEN_BACK = new Map<bigint, readonly bigint[]>([
  [0n, [1n, 2n]],
  [1n, [2n]],
  [2n, [1n]],
  [13n, [12n]],
  [14n, [15n]],
  [15n, [14n]],
  [17n, [16n]],
  [19n, [18n]],
]);
/** Advice that only takes others back. */
const NOT_KEPT: ReadonlySet<bigint> = new Set([0n, 13n, 17n, 19n]);

export class AddressSpace {
  readonly pages = new Map<bigint, ModelPage>();
  readonly open = new Map<bigint, OpenFile>();
  #nextFd = 3n;

  /**
   * @param agent nothing may touch its memory
   * @param scratch nothing but this and `areas` may be mapped
   * @param vdsoSize bytes that the kernel maps as vvar and vdso together
   * @param objects shared memory that ckpt made, by descriptor
   */
  constructor(
    readonly agent: AddressRange,
    readonly scratch: AddressRange,
    readonly areas: readonly { start: bigint; end: bigint }[],
    readonly vdsoSize: bigint,
    readonly objects: ReadonlyMap<bigint, ModelObject> = new Map(),
  ) {}

  /**
   * What a child has after fork(2), as dup_mmap in mm/mmap.c does it.
   *
   * @param areas where the child may map
   */
  fork(areas: readonly { start: bigint; end: bigint }[]): AddressSpace {
    const child = new AddressSpace(
      this.agent,
      this.scratch,
      areas,
      this.vdsoSize,
      this.objects,
    );
    for (const [at, page] of this.pages) {
      if (page.advice.has(MADV_DONTFORK)) continue;
      const copy = { ...page, advice: new Set(page.advice) };
      delete copy.locked;
      if (
        page.advice.has(MADV_WIPEONFORK) || (page.flags & MAP.droppable) !== 0
      ) {
        delete copy.content;
        copy.guard = false;
      }
      copy.inherited = copy.content !== undefined;
      child.pages.set(at, copy);
    }
    return child;
  }

  /**
   * What is in a page that was filled from a place; tests that compare pages
   * set it.
   */
  bytesFrom = (place: string | undefined): string | undefined => place;

  #write(page: ModelPage, from: string): void {
    assert(!page.vdso, "the vdso is written");
    assert((page.prot & PROT.write) !== 0, "a page is not writable");
    assert(!page.guard, "a guard page is written");
    page.content = from;
    page.inherited = false;
  }

  execute(program: DecodedProgram): void {
    const results: bigint[] = [];
    for (const operation of program.operations) {
      const args = operation.args.map(({ kind, value }) =>
        kind === "result" ? results[Number(value)] : value
      );
      results.push(this.#call(program, operation, args));
    }
  }

  /** All pages of a range, which have to be mapped. */
  #mapped(start: bigint, length: bigint): ModelPage[] {
    assertEquals(start % PAGE, 0n);
    assert(length > 0n);
    const found: ModelPage[] = [];
    for (let at = start; at < start + length; at += PAGE) {
      const page = this.pages.get(at);
      assert(page !== undefined, `${at.toString(16)} is not mapped`);
      assert(!page.sealed, `${at.toString(16)} is sealed`);
      found.push(page);
    }
    return found;
  }

  #place(start: bigint, length: bigint, make: (i: bigint) => ModelPage): void {
    assertEquals(start % PAGE, 0n);
    assertEquals(length % PAGE, 0n);
    assert(length > 0n);
    const end = start + length;
    assert(
      end <= this.agent.start || this.agent.end <= start,
      "hits the agent",
    );
    const inScratch = this.scratch.start <= start && end <= this.scratch.end;
    const inArea = this.areas.some((area) =>
      area.start <= start && end <= area.end
    );
    assert(
      inScratch || inArea,
      `${start.toString(16)}-${end.toString(16)} is outside of all areas`,
    );
    for (let at = start; at < end; at += PAGE) {
      assert(!this.pages.has(at), `${at.toString(16)} is mapped twice`);
      this.pages.set(at, make((at - start) / PAGE));
    }
  }

  #call(
    program: DecodedProgram,
    { name, args: decoded, whole }: DecodedOperation,
    args: readonly bigint[],
  ): bigint {
    switch (name) {
      case "mmap": {
        const [start, length, prot, flags, fd, offset] = args;
        assert((Number(flags) & MAP.fixed) !== 0, "not at a fixed place");
        const anonymous = (Number(flags) & MAP.anonymous) !== 0;
        const object = this.objects.get(fd);
        const file = this.open.get(fd);
        if (anonymous) {
          assertEquals(BigInt.asIntN(32, fd), -1n);
          assert((Number(flags) & MAP.shared) === 0, "makes shared memory");
        } else {
          assert(file !== undefined || object !== undefined, `no file ${fd}`);
        }
        this.#place(start, length, (i) => ({
          prot: Number(prot),
          flags: Number(flags) & ~MAP.fixed,
          file: file && `${file.path} ${file.flags & 3n}`,
          object,
          pgoff: offset + i * PAGE,
          advice: new Set(),
          guard: false,
          sealed: false,
          vdso: false,
        }));
        return start;
      }
      case "munmap": {
        const [start, length] = args;
        const end = start + length;
        assert(
          end <= this.agent.start || this.agent.end <= start,
          "hits the agent",
        );
        assert(this.pages.has(start) && this.pages.has(end - PAGE));
        for (const [at, page] of this.pages) {
          if (at < start || at >= end) continue;
          assert(!page.sealed, `${at.toString(16)} is sealed`);
          this.pages.delete(at);
        }
        return 0n;
      }
      case "mremap": {
        const [start, length, newLength, flags, target] = args;
        if (flags === 0n) {
          assert(newLength > length);
          const last = this.#mapped(start, length).at(-1)!;
          assert((last.flags & (MAP.anonymous | MAP.private)) !== 0);
          assertEquals(last.flags & MAP.growsdown, 0);
          this.#place(start + length, newLength - length, () => ({
            ...last,
            advice: new Set(last.advice),
            content: undefined,
            inherited: false,
            guard: false,
          }));
          return start;
        }
        assertEquals(newLength, length);
        assertEquals(flags, MREMAP_MAYMOVE_FIXED);
        const moved = this.#mapped(start, length);
        for (let at = start; at < start + length; at += PAGE) {
          this.pages.delete(at);
        }
        this.#place(target, length, (i) => moved[Number(i)]);
        return target;
      }
      case "mprotect":
        for (const page of this.#mapped(args[0], args[1])) {
          assert(!page.vdso);
          page.prot = Number(args[2]);
        }
        return 0n;
      case "madvise":
        for (const page of this.#mapped(args[0], args[1])) {
          assert(!page.vdso);
          this.#advise(page, args[2]);
        }
        return 0n;
      case "store": {
        const at = args[0] & ~(PAGE - 1n);
        const [page] = this.#mapped(at, PAGE);
        this.#write(page, "used");
        return 0n;
      }
      case "pread64": {
        const [fd, start, length, offset] = args;
        assert(whole, "a short read would go unnoticed");
        this.#mapped(start, length).forEach((page, i) => {
          assert(page.content === undefined, "a page is filled twice");
          this.#write(page, `${fd} ${offset + BigInt(i) * PAGE}`);
        });
        return length;
      }
      case "update": {
        const [fd, start, length, offset, , room] = args;
        assertEquals(decoded[4].kind, "data");
        assert(decoded[4].value + room <= BigInt(program.data.byteLength));
        let stored = 0n;
        this.#mapped(start, length).forEach((page, i) => {
          const from = `${fd} ${offset + BigInt(i) * PAGE}`;
          assert((page.prot & PROT.read) !== 0, "a page is not readable");
          if (this.bytesFrom(page.content) === this.bytesFrom(from)) return;
          this.#write(page, from);
          stored++;
        });
        return stored;
      }
      case "arch_prctl": {
        assertEquals(args[0], ARCH_MAP_VDSO_64);
        this.#place(args[1], this.vdsoSize, () => ({
          prot: PROT.read,
          flags: 0,
          pgoff: 0n,
          advice: new Set(),
          guard: false,
          sealed: false,
          vdso: true,
        }));
        return 0n;
      }
      case "openat": {
        assertEquals(decoded[1].kind, "data");
        const path = textAt(program, decoded[1].value);
        this.open.set(this.#nextFd, { path, flags: args[2] });
        return this.#nextFd++;
      }
      case "close":
        assert(this.open.delete(args[0]), `descriptor ${args[0]} is not open`);
        return 0n;
      case "prctl":
        assertEquals(args.slice(0, 2), [0x53564d41n, 0n]);
        for (const page of this.#mapped(args[2], args[3])) {
          assert((page.flags & MAP.anonymous) !== 0 || page.object);
          page.name = decoded[4].kind === "data"
            ? textAt(program, decoded[4].value)
            : undefined;
        }
        return 0n;
      case "mlock2":
        for (const page of this.#mapped(args[0], args[1])) {
          page.locked = args[2];
        }
        return 0n;
      case "mseal":
        for (const page of this.#mapped(args[0], args[1])) page.sealed = true;
        return 0n;
      default:
        throw new Error(`${name} is not part of rebuilding memory`);
    }
  }

  #advise(page: ModelPage, advice: bigint): void {
    switch (advice) {
      case MADV_DONTNEED:
        assert(page.locked === undefined, "a locked page is dropped");
        delete page.content;
        page.inherited = false;
        return;
      case MADV_GUARD_INSTALL:
        assert(page.locked === undefined, "a locked page becomes a guard");
        page.guard = true;
        delete page.content;
        page.inherited = false;
        return;
      case MADV_GUARD_REMOVE:
        page.guard = false;
        return;
      default:
        for (const back of TAKEN_BACK.get(advice) ?? []) {
          page.advice.delete(back);
        }
        if (!NOT_KEPT.has(advice)) page.advice.add(advice);
    }
  }
}
