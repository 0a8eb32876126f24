/**
 * Does once, when ckpt is built, what the dynamic linker would do at every
 * start: Deno has 157,000 words that depend on where it is in memory. To fill
 * them takes 4 ms and a copy of 600 pages, a quarter of Deno's whole start. So
 * the executable gets an address, the words are filled for it, and only what
 * leads to other libraries is left to the dynamic linker. These, the heap and
 * the stacks are where the kernel's randomness puts them, as before.
 */

import {
  DT,
  dynamicEntries,
  offsetOf,
  programHeaders,
  RELA_SIZE,
  setWord,
  SYMBOL_SIZE,
  word,
} from "./elf.ts";

/**
 * Where Linux puts position-independent executables when it does not choose
 * at random (ELF_ET_DYN_BASE is two thirds of the address space): far from
 * the libraries, the stack, and what programs ask for by address.
 */
export const BASE = 0x555500000000;

const ET_EXEC = 2;
const ET_DYN = 3;
const R_X86_64_RELATIVE = 8;

/** Entries of the dynamic section that are addresses. */
const ADDRESSES = [
  DT.PLTGOT,
  DT.HASH,
  DT.STRTAB,
  DT.SYMTAB,
  DT.RELA,
  DT.INIT,
  DT.FINI,
  DT.JMPREL,
  DT.INIT_ARRAY,
  DT.FINI_ARRAY,
  DT.PREINIT_ARRAY,
  DT.GNU_HASH,
  DT.VERSYM,
  DT.VERDEF,
  DT.VERNEED,
];

/**
 * @param file a dynamic 64-bit position-independent ELF executable
 * @returns the same, for BASE; without sections, which nothing needs at run time
 * @throws Error when it is not such a file, or has relocations that are not
 *   known here
 */
export function prelink(file: Uint8Array): Uint8Array {
  const result = file.slice();
  const elf = new DataView(result.buffer);
  if (elf.getUint32(0) !== 0x7f454c46 || elf.getUint16(4) !== 0x0201) {
    throw new Error("cannot pack: not a 64-bit little-endian ELF file");
  }
  if (elf.getUint16(16, true) !== ET_DYN) {
    throw new Error("cannot pack: the ELF file is not position independent");
  }
  const headers = programHeaders(elf);
  const dynamic = dynamicEntries(elf, headers);
  const entry = (tag: number) => {
    const at = dynamic.get(tag);
    return at === undefined ? 0 : word(elf, at);
  };
  if (entry(DT.RELRSZ) > 0) {
    throw new Error("cannot pack: the ELF file has relocations of type RELR");
  }
  const shift = (at: number) => setWord(elf, at, word(elf, at) + BASE);

  // The relative ones come first.
  const count = entry(DT.RELACOUNT);
  const table = offsetOf(headers, entry(DT.RELA));
  const size = entry(DT.RELASZ);
  for (let at = table; at < table + size; at += RELA_SIZE) {
    const relative = elf.getUint32(at + 8, true) === R_X86_64_RELATIVE;
    if (relative !== at < table + count * RELA_SIZE) {
      throw new Error("cannot pack: the ELF file's relocations are not sorted");
    }
    if (relative) {
      const place = offsetOf(headers, word(elf, at));
      setWord(elf, place, word(elf, at + 16) + BASE);
    } else {
      shift(at);
    }
  }
  const jumps = offsetOf(headers, entry(DT.JMPREL));
  for (let at = 0; at < entry(DT.PLTRELSZ); at += RELA_SIZE) shift(jumps + at);
  shiftSymbols(elf, offsetOf(headers, entry(DT.SYMTAB)));

  for (const tag of ADDRESSES) {
    const at = dynamic.get(tag);
    if (at !== undefined) shift(at);
  }
  const relative = count * RELA_SIZE;
  if (relative > 0) {
    const put = (tag: number, value: number) =>
      setWord(elf, dynamic.get(tag)!, value);
    put(DT.RELA, entry(DT.RELA) + relative);
    put(DT.RELASZ, size - relative);
    put(DT.RELACOUNT, 0);
  }
  for (const { at } of headers) {
    shift(at + 16);
    shift(at + 24);
  }
  shift(24); // The entry point.
  elf.setUint16(16, ET_EXEC, true);
  dropSections(elf);
  return result;
}

/** Of all symbols that have an address, in the table that is at an offset. */
function shiftSymbols(elf: DataView, table: number): void {
  const STT_TLS = 6;
  const SHN_UNDEF = 0;
  const SHN_LORESERVE = 0xff00;
  const size = sizeOfSection(elf, table);
  for (let at = table; at < table + size; at += SYMBOL_SIZE) {
    const section = elf.getUint16(at + 6, true);
    if (section === SHN_UNDEF || section >= SHN_LORESERVE) continue;
    if ((elf.getUint8(at + 4) & 15) === STT_TLS) continue;
    setWord(elf, at + 8, word(elf, at + 8) + BASE);
  }
}

/** Only the sections tell how many symbols there are. */
function sizeOfSection(elf: DataView, offset: number): number {
  const table = word(elf, 40);
  const size = elf.getUint16(58, true);
  for (let i = 0; i < elf.getUint16(60, true); i++) {
    const at = table + i * size;
    if (word(elf, at + 24) === offset) return word(elf, at + 32);
  }
  throw new Error("cannot pack: the ELF file's sections lack its symbols");
}

/** Their addresses are not those of the segments any more. */
function dropSections(elf: DataView): void {
  setWord(elf, 40, 0);
  elf.setUint16(60, 0, true);
  elf.setUint16(62, 0, true);
}
