/**
 * Makes one executable of the Deno binary, the program, libckpt.so and the
 * compiled program: the payload is appended to the file, and the ELF's PT_NOTE entry (which nothing
 * needs at run time) becomes a PT_LOAD that maps it, so the kernel brings it
 * into memory with the program. The entry point is the stub at its front
 * (stub.c). ELF layout: elf(5).
 */

import {
  DT,
  dynamicEntries,
  offsetOf,
  type ProgramHeader,
  programHeaders,
  PT_LOAD,
  PT_NOTE,
  RELA_SIZE,
  setWord,
  SYMBOL_SIZE,
  word,
} from "./elf.ts";
import { prelink } from "./prelink.ts";

const HEADER_MAGIC = "ckptpack";
/** Bytes of the stub's header; the stub's first instruction follows it. */
const HEADER_SIZE = 176;
const PAGE = 4096;

const FLAGS_READ_EXECUTE = 4 | 1;

/** A bundle, and what codeCache made of it; empty for none. */
export interface Program {
  text: Uint8Array;
  cache: Uint8Array;
}

const R_X86_64_GLOB_DAT = 6;
const R_X86_64_JUMP_SLOT = 7;

/**
 * The address of the word that the dynamic linker fills with the address of
 * `name`, a variable or a function of libc.
 *
 * @param relocation its kind: a compiler makes R_X86_64_JUMP_SLOT where the
 *   function is only called, and R_X86_64_GLOB_DAT elsewhere
 */
function slotOf(
  elf: DataView,
  headers: ProgramHeader[],
  name: string,
  relocation: number,
): number {
  const dynamic = dynamicEntries(elf, headers);
  const entry = (tag: number) => word(elf, dynamic.get(tag) ?? -1);
  const strings = offsetOf(headers, entry(DT.STRTAB));
  const symbols = offsetOf(headers, entry(DT.SYMTAB));
  const [table, size] = relocation === R_X86_64_JUMP_SLOT
    ? [DT.JMPREL, DT.PLTRELSZ]
    : [DT.RELA, DT.RELASZ];
  const relocations = offsetOf(headers, entry(table));
  const wanted = new TextEncoder().encode(name + "\0");
  for (let i = 0; i < entry(size); i += RELA_SIZE) {
    const at = relocations + i;
    if (elf.getUint32(at + 8, true) !== relocation) continue;
    const symbol = symbols + elf.getUint32(at + 12, true) * SYMBOL_SIZE;
    const text = strings + elf.getUint32(symbol, true);
    if (wanted.every((byte, j) => elf.getUint8(text + j) === byte)) {
      return word(elf, at);
    }
  }
  throw new Error(`cannot pack: the ELF file does not use ${name} of libc`);
}

const align = (value: number, to: number) => Math.ceil(value / to) * to;

/**
 * @param deno a dynamic 64-bit little-endian position-independent ELF with a PT_NOTE
 *   behind its last PT_LOAD
 * @param stub flat image of stub.c
 * @param library libckpt.so
 * @param programs for all commands, for dump, and for restore
 * @returns the bytes of the executable
 * @throws Error when `deno` is not such an ELF or `stub` is not the stub
 */
export function pack(
  deno: Uint8Array,
  stub: Uint8Array,
  library: Uint8Array,
  programs: readonly [Program, Program, Program],
): Uint8Array {
  const executable = prelink(deno);
  const elf = new DataView(executable.buffer);
  const headers = programHeaders(elf);
  let note: number | undefined;
  let loadAfterNote = false;
  let end = 0;
  for (const header of headers) {
    if (header.type === PT_NOTE) {
      note = header.at;
      loadAfterNote = false;
    } else if (header.type === PT_LOAD) {
      loadAfterNote = true;
      end = Math.max(end, header.address + header.memorySize);
    }
  }
  // The kernel and the dynamic linker want PT_LOAD entries in address order,
  // and the payload gets the highest address.
  if (note === undefined || loadAfterNote) {
    throw new Error(
      "cannot pack: the ELF file has no PT_NOTE behind its last PT_LOAD",
    );
  }
  if (new TextDecoder().decode(stub.subarray(0, 8)) !== HEADER_MAGIC) {
    throw new Error("cannot pack: the stub does not begin with its header");
  }

  const parts = [
    library,
    ...programs.flatMap(({ text, cache }) => [text, cache]),
  ];
  let size = stub.length;
  const offsets = parts.map((part) => {
    const start = align(size, 16);
    size = start + part.length;
    return start;
  });
  const address = align(end, PAGE);
  const offset = align(executable.length, PAGE);

  const file = new Uint8Array(offset + size);
  file.set(executable);
  file.set(stub, offset);

  const view = new DataView(file.buffer);
  const put = (at: number, value: number) => setWord(view, at, value);
  put(offset + 8, word(elf, 24) - address);
  let at = offset + 16;
  for (const [i, part] of parts.entries()) {
    file.set(part, offset + offsets[i]);
    put(at, offsets[i]);
    put(at + 8, part.length);
    at += 16;
  }
  const slots = [
    ["environ", R_X86_64_GLOB_DAT],
    // The ones that SQLite uses; Rust has others.
    ["open64", R_X86_64_JUMP_SLOT],
    ["openat64", R_X86_64_GLOB_DAT],
    ["__xstat64", R_X86_64_JUMP_SLOT],
    ["__fxstatat64", R_X86_64_JUMP_SLOT],
  ] as const;
  for (const [i, [name, relocation]] of slots.entries()) {
    put(at + 8 * i, slotOf(elf, headers, name, relocation) - address);
  }

  view.setUint32(note, PT_LOAD, true);
  view.setUint32(note + 4, FLAGS_READ_EXECUTE, true);
  put(note + 8, offset);
  put(note + 16, address);
  put(note + 24, address);
  put(note + 32, size);
  put(note + 40, size);
  put(note + 48, PAGE);
  put(24, address + HEADER_SIZE);
  return file;
}
