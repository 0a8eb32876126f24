/** What packing has to know of an ELF file, as elf(5) lays it out. */

export const PT_LOAD = 1;
const PT_DYNAMIC = 2;
export const PT_NOTE = 4;

/** One entry of the program header table. */
export interface ProgramHeader {
  /** Where in the file the entry itself is. */
  at: number;
  type: number;
  offset: number;
  address: number;
  fileSize: number;
  memorySize: number;
}

/** A word of 64 bits; addresses and sizes of files are exact as numbers. */
export function word(elf: DataView, at: number): number {
  return Number(elf.getBigUint64(at, true));
}

export function setWord(elf: DataView, at: number, value: number): void {
  elf.setBigInt64(at, BigInt(value), true);
}

export function programHeaders(elf: DataView): ProgramHeader[] {
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

/**
 * Where in the file the byte is that will be at an address.
 *
 * @throws Error when it is in no segment
 */
export function offsetOf(headers: ProgramHeader[], address: number): number {
  const load = headers.find((h) =>
    h.type === PT_LOAD && address >= h.address &&
    address < h.address + h.fileSize
  );
  if (load === undefined) {
    throw new Error(`cannot pack: no segment holds address ${address}`);
  }
  return address - load.address + load.offset;
}

/** Where in the file the value of each entry of the dynamic section is, by its tag. */
export function dynamicEntries(
  elf: DataView,
  headers: ProgramHeader[],
): Map<number, number> {
  const DT_NULL = 0;
  const entries = new Map<number, number>();
  const dynamic = headers.find((h) => h.type === PT_DYNAMIC);
  for (let i = 0; i < (dynamic?.fileSize ?? 0); i += 16) {
    const at = dynamic!.offset + i;
    if (word(elf, at) === DT_NULL) break;
    entries.set(word(elf, at), at + 8);
  }
  return entries;
}

export const DT = {
  PLTRELSZ: 2,
  PLTGOT: 3,
  HASH: 4,
  STRTAB: 5,
  SYMTAB: 6,
  RELA: 7,
  RELASZ: 8,
  INIT: 12,
  FINI: 13,
  JMPREL: 23,
  INIT_ARRAY: 25,
  FINI_ARRAY: 26,
  PREINIT_ARRAY: 32,
  RELRSZ: 35,
  GNU_HASH: 0x6ffffef5,
  VERSYM: 0x6ffffff0,
  RELACOUNT: 0x6ffffff9,
  VERDEF: 0x6ffffffc,
  VERNEED: 0x6ffffffe,
};

/** Size of an entry of a table of relocations, and of one of symbols. */
export const RELA_SIZE = 24;
export const SYMBOL_SIZE = 24;
