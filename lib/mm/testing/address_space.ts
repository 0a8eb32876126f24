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

/** Memory that several areas may show: page number -> what was read there. */
export interface ModelObject {
  readonly content: Map<bigint, string>;
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
  object?: ModelObject;
}

const ARCH_MAP_VDSO_64 = 0x2003n;
const MADV_DONTNEED = 4n;
const MADV_GUARD_INSTALL = 102n;
const MREMAP_MAYMOVE_FIXED = 3n;

export class AddressSpace {
  readonly pages = new Map<bigint, ModelPage>();
  readonly open = new Map<bigint, OpenFile>();
  #nextFd = 3n;

  /**
   * @param agent nothing may touch its memory
   * @param scratch nothing but this and `areas` may be mapped
   * @param vdsoSize bytes that the kernel maps as vvar and vdso together
   */
  constructor(
    readonly agent: AddressRange,
    readonly scratch: AddressRange,
    readonly areas: readonly { start: bigint; end: bigint }[],
    readonly vdsoSize: bigint,
  ) {}

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
        const file = anonymous ? undefined : this.open.get(fd);
        if (anonymous) assertEquals(BigInt.asIntN(32, fd), -1n);
        else assert(file !== undefined, `descriptor ${fd} is not open`);
        const shared = (Number(flags) & MAP.shared) !== 0;
        const object = file?.object ??
          (anonymous && shared ? { content: new Map() } : undefined);
        this.#place(start, length, (i) => ({
          prot: Number(prot),
          flags: Number(flags) & ~MAP.fixed,
          file: file === undefined || object !== undefined
            ? undefined
            : `${file.path} ${file.flags & 3n}`,
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
        this.#mapped(start, length);
        for (let at = start; at < start + length; at += PAGE) {
          this.pages.delete(at);
        }
        return 0n;
      }
      case "mremap": {
        const [start, length, newLength, flags, target] = args;
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
          if (args[2] === MADV_DONTNEED) page.content = undefined;
          else if (args[2] === MADV_GUARD_INSTALL) page.guard = true;
          else page.advice.add(args[2]);
        }
        return 0n;
      case "store": {
        const at = args[0] & ~(PAGE - 1n);
        const [page] = this.#mapped(at, PAGE);
        assert((page.prot & PROT.write) !== 0 && !page.vdso);
        page.content = "used";
        return 0n;
      }
      case "pread64": {
        const [fd, start, length, offset] = args;
        assert(whole, "a short read would go unnoticed");
        this.#mapped(start, length).forEach((page, i) => {
          assert(!page.vdso, "the vdso is written");
          assert((page.prot & PROT.write) !== 0, "a page is not writable");
          const from = `${fd} ${offset + BigInt(i) * PAGE}`;
          if (page.object !== undefined) {
            assert(!page.object.content.has(page.pgoff), "filled twice");
            page.object.content.set(page.pgoff, from);
          } else {
            assert(page.content === undefined, "a page is filled twice");
            page.content = from;
          }
        });
        return length;
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
        const file: OpenFile = { path, flags: args[2] };
        const link = /^\/proc\/self\/map_files\/(\w+)-(\w+)$/.exec(path);
        if (link !== null) {
          const [start, end] = [BigInt(`0x${link[1]}`), BigInt(`0x${link[2]}`)];
          const objects = new Set(
            this.#mapped(start, end - start).map(({ object }) => object),
          );
          assertEquals(objects.size, 1);
          [file.object] = objects;
          assert(file.object !== undefined);
        }
        this.open.set(this.#nextFd, file);
        return this.#nextFd++;
      }
      case "close":
        assert(this.open.delete(args[0]), `descriptor ${args[0]} is not open`);
        return 0n;
      case "prctl":
        assertEquals(args.slice(0, 2), [0x53564d41n, 0n]);
        for (const page of this.#mapped(args[2], args[3])) {
          page.name = textAt(program, decoded[4].value);
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
}
