/**
 * Structures of the kernel, looked up in its memory by the names of their
 * fields.
 */
import { type FieldOffsets, fieldOffsets, UnknownField } from "./btf.ts";
import { KernelMemory } from "./kernel_memory.ts";
import { SyscallError } from "./syscall.ts";

/** From a task to its open files. */
const FILES = {
  task_struct: ["files"],
  files_struct: ["fdt"],
  fdtable: ["fd"],
} as const;

export class KernelStructures implements Disposable {
  readonly memory: KernelMemory;
  readonly #fields: Record<string, FieldOffsets>;

  private constructor(
    fields: Record<string, FieldOffsets>,
    memory: KernelMemory,
  ) {
    this.#fields = fields;
    this.memory = memory;
  }

  /**
   * @param wanted paths of fields, by the names of structures
   * @returns why it cannot be done here, where that is so
   */
  static open(
    wanted: Readonly<Record<string, readonly string[]>>,
  ): KernelStructures | string {
    try {
      const fields = fieldOffsets({
        ...FILES,
        ...wanted,
        task_struct: [
          ...new Set([...FILES.task_struct, ...wanted.task_struct ?? []]),
        ],
      });
      return new KernelStructures(fields, KernelMemory.open());
    } catch (error) {
      if (error instanceof SyscallError || error instanceof UnknownField) {
        return error.message;
      }
      throw error;
    }
  }

  fieldsOf(structure: string): FieldOffsets {
    return this.#fields[structure];
  }

  /** Bytes from the beginning of a structure to a field of it. */
  offset(structure: string, field: string): number {
    return this.#fields[structure].get(field)! / 8;
  }

  /** The address of a field. */
  at(address: bigint, structure: string, field: string): bigint {
    return address + BigInt(this.offset(structure, field));
  }

  pointer(address: bigint, structure: string, field: string): bigint {
    return this.memory.pointer(this.at(address, structure, field));
  }

  /** @param length of the field, in bytes, at most 4 */
  number(
    address: bigint,
    structure: string,
    field: string,
    length: number,
  ): number {
    const bytes = new Uint8Array(4);
    bytes.set(this.memory.read(this.at(address, structure, field), length));
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  /** struct file of a descriptor of ckpt's own. */
  file(fd: number): bigint {
    const files = this.pointer(this.memory.ownTask(), "task_struct", "files");
    const table = this.pointer(files, "files_struct", "fdt");
    const list = this.pointer(table, "fdtable", "fd");
    return this.memory.pointer(list + BigInt(fd * 8));
  }

  [Symbol.dispose](): void {
    this.memory[Symbol.dispose]();
  }
}
