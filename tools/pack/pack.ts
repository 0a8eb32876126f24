/**
 * Makes one executable of the Deno binary, the program, libckpt.so and the
 * compiled program: the payload is appended to the file, and the ELF's PT_NOTE entry (which nothing
 * needs at run time) becomes a PT_LOAD that maps it, so the kernel brings it
 * into memory with the program. The entry point is the stub at its front
 * (stub.c). ELF layout: elf(5).
 */

const HEADER_MAGIC = "ckptpack";
/** Bytes of the stub's header; the stub's first instruction follows it. */
const HEADER_SIZE = 176;
const PAGE = 4096;

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_NOTE = 4;
const FLAGS_READ_EXECUTE = 4 | 1;

/** A bundle, and what codeCache made of it; empty for none. */
export interface Program {
  text: Uint8Array;
  cache: Uint8Array;
}

/** One entry of the program header table. */
interface ProgramHeader {
  /** Where in the file the entry itself is. */
  at: number;
  type: number;
  offset: number;
  address: number;
  fileSize: number;
  memorySize: number;
}

const word = (elf: DataView, at: number) => Number(elf.getBigUint64(at, true));

function programHeaders(elf: DataView): ProgramHeader[] {
  const table = word(elf, 32);
  const size = elf.getUint16(54, true);
  return Array.from({ length: elf.getUint16(56, true) }, (_, i) => {
    const at = table + i * size;
    return {
      at,
      type: elf.getUint32(at, true),
      offset: word(elf, at + 8),
      address: word(elf, at + 16),
      fileSize: word(elf, at + 32),
      memorySize: word(elf, at + 40),
    };
  });
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
  const DT_STRTAB = 5;
  const DT_SYMTAB = 6;
  const DT_RELA = 7;
  const DT_RELASZ = 8;
  const DT_PLTRELSZ = 2;
  const DT_JMPREL = 23;
  const offsetOf = (address: number) => {
    const load = headers.find((h) =>
      h.type === PT_LOAD && address >= h.address &&
      address < h.address + h.fileSize
    );
    if (load === undefined) {
      throw new Error(`cannot pack: no segment holds address ${address}`);
    }
    return address - load.address + load.offset;
  };
  const tags = new Map<number, number>();
  const dynamic = headers.find((h) => h.type === PT_DYNAMIC);
  for (let i = 0; i < (dynamic?.fileSize ?? 0); i += 16) {
    const at = dynamic!.offset + i;
    tags.set(word(elf, at), word(elf, at + 8));
  }
  const strings = offsetOf(tags.get(DT_STRTAB) ?? -1);
  const symbols = offsetOf(tags.get(DT_SYMTAB) ?? -1);
  const [table, size] = relocation === R_X86_64_JUMP_SLOT
    ? [DT_JMPREL, DT_PLTRELSZ]
    : [DT_RELA, DT_RELASZ];
  const relocations = offsetOf(tags.get(table) ?? -1);
  const wanted = new TextEncoder().encode(name + "\0");
  for (let i = 0; i < (tags.get(size) ?? 0); i += 24) {
    const at = relocations + i;
    if (elf.getUint32(at + 8, true) !== relocation) continue;
    const symbol = symbols + elf.getUint32(at + 12, true) * 24;
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
  const elf = new DataView(deno.buffer, deno.byteOffset, deno.byteLength);
  if (elf.getUint32(0) !== 0x7f454c46 || elf.getUint16(4) !== 0x0201) {
    throw new Error("cannot pack: not a 64-bit little-endian ELF file");
  }
  const ET_DYN = 3;
  if (elf.getUint16(16, true) !== ET_DYN) {
    throw new Error("cannot pack: the ELF file is not position independent");
  }

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
  const offset = align(deno.length, PAGE);

  const file = new Uint8Array(offset + size);
  file.set(deno);
  file.set(stub, offset);

  const view = new DataView(file.buffer);
  const put = (at: number, value: number) =>
    view.setBigInt64(at, BigInt(value), true);
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
