/**
 * Where the kernel keeps what: offsets of fields in its structures, from the
 * types it describes itself by (c/lib/btf.c).
 */
import { EINVAL, ENOENT } from "./errno.ts";
import { library } from "./library.ts";
import { SyscallError } from "./syscall.ts";
import { encodeText } from "./text.ts";

/** Offsets in bits, by the paths of fields: "flow.stopped"; of {@link END}. */
export type FieldOffsets = ReadonlyMap<string, number>;

/** A path for where a structure ends: how large it is. */
export const END = ".";

/** The kernel does not tell of a structure or a field. */
export class UnknownField extends Error {
  override readonly name = "UnknownField";
}

/** Files of types. */
export interface TypeFiles {
  readonly kernel: string;
  /** Of a module; nothing where the kernel has that built in. */
  readonly module?: string;
}

const KERNEL: TypeFiles = { kernel: "/sys/kernel/btf/vmlinux" };

/** @returns where the types of a module are that may be built in */
export function withModule(name: string): TypeFiles {
  return { ...KERNEL, module: `/sys/kernel/btf/${name}` };
}

/** Paths of fields, by the names of structures. */
export type WantedFields = Readonly<Record<string, readonly string[]>>;

/** @throws UnknownField; SyscallError when the types cannot be read */
export function fieldOffsets(
  wanted: WantedFields,
  files = KERNEL,
): Record<string, FieldOffsets> {
  return findTypes(wanted, [], files).fields;
}

/** The same, and the numbers that functions have as types, by their names. */
export function findTypes(
  wanted: WantedFields,
  functions: readonly string[],
  files = KERNEL,
): {
  readonly fields: Record<string, FieldOffsets>;
  readonly functions: Record<string, number>;
} {
  const structures = Object.entries(wanted).map(([name, paths]) => ({
    name,
    paths,
    fields: paths.filter((path) => path !== END),
  }));
  const answers = find(files, [
    ...structures.map(({ name, fields }) => ["s", name, ...fields]),
    ...functions.map((name) => ["f", name]),
  ]);
  const fields = Object.fromEntries(
    structures.map(({ name, paths, fields }, i) => {
      const [size, ...offsets] = answers[i];
      if (size < 0) {
        throw new UnknownField(`this kernel tells of no structure ${name}`);
      }
      const missing = offsets.findIndex((offset) => offset < 0);
      if (missing >= 0) {
        throw new UnknownField(
          `this kernel's structure ${name} has no ${fields[missing]}`,
        );
      }
      const known = new Map(fields.map((field, j) => [field, offsets[j]]));
      if (paths.includes(END)) known.set(END, size);
      return [name, known];
    }),
  );
  const numbers = functions.map((name, i) => {
    const [number] = answers[structures.length + i];
    if (number >= 0) return [name, number];
    throw new UnknownField(`this kernel tells of no function ${name}`);
  });
  return { fields, functions: Object.fromEntries(numbers) };
}

/** The answers to each line, as many as it has words after the first. */
function find(
  { kernel, module = "" }: TypeFiles,
  lines: readonly (readonly string[])[],
): number[][] {
  const text = lines.map((words) => `${words.join(" ")}\n`).join("");
  const count = lines.reduce((sum, words) => sum + words.length - 1, 0);
  const answers = new BigInt64Array(count);
  const result = Number(
    library("types").ckpt_find_types(
      encodeText(`${kernel}\0`),
      encodeText(`${module}\0`),
      encodeText(`${text}\0`),
      new Uint8Array(answers.buffer),
    ),
  );
  if (result === -ENOENT) throw new UnknownField(`there is no ${kernel}`);
  if (result === -EINVAL) {
    throw new UnknownField("the kernel's types are of an unknown format");
  }
  if (result < 0) throw new SyscallError("read", -result);
  let at = 0;
  return lines.map((words) =>
    Array.from(answers.subarray(at, at += words.length - 1), Number)
  );
}
