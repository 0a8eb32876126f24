/**
 * Where the kernel keeps what: offsets of fields in its structures, from the
 * types it describes itself by (BTF, Documentation/bpf/btf.rst). Pure.
 */

const MAGIC = 0xeb9f;
const HEADER_BYTES = 24;

/** Kinds of types, and the bytes that follow one: once, or for each member. */
const KIND = {
  array: 3,
  struct: 4,
  union: 5,
  typedef: 8,
  volatile: 9,
  const: 10,
  typeTag: 18,
} as const;
const ONCE: Readonly<Record<number, number>> = { 1: 4, 3: 12, 14: 4, 17: 4 };
const EACH: Readonly<Record<number, number>> = {
  4: 12,
  5: 12,
  6: 8,
  13: 8,
  15: 12,
  19: 12,
};
const MEMBER_BYTES = 12;
const HAS_BITFIELDS = 0x8000_0000;

/** Offsets in bits, by the paths of fields: "flow.stopped"; of {@link END}. */
export type FieldOffsets = ReadonlyMap<string, number>;

/** A path for where a structure ends: how large it is. */
export const END = ".";

/** The kernel does not tell of a structure or a field. */
export class UnknownField extends Error {
  override readonly name = "UnknownField";
}

/**
 * @param btf /sys/kernel/btf/vmlinux
 * @param wanted paths of fields, by the names of structures
 * @param module /sys/kernel/btf/MODULE, whose numbers of types and offsets of
 * names go on where those of the kernel end
 * @throws UnknownField
 */
export function fieldOffsets(
  btf: Uint8Array<ArrayBuffer>,
  wanted: Readonly<Record<string, readonly string[]>>,
  module = new Uint8Array(0),
): Record<string, FieldOffsets> {
  const types = new Types(btf, module);
  return Object.fromEntries(
    Object.entries(types.named(Object.keys(wanted))).map(([name, places]) => [
      name,
      types.offsets(name, places, wanted[name]),
    ]),
  );
}

class Types {
  readonly #view: DataView;
  /** Each name between zeros. */
  #names = "";
  /** Where each type is, by its number. */
  readonly #places: number[] = [0];
  readonly #structures: { name: number; at: number }[] = [];

  constructor(btf: Uint8Array, module: Uint8Array) {
    const bytes = new Uint8Array(btf.length + module.length);
    bytes.set(btf);
    bytes.set(module, btf.length);
    this.#view = new DataView(bytes.buffer);
    this.#add(bytes, 0);
    if (module.length > 0) this.#add(bytes, btf.length);
  }

  #add(bytes: Uint8Array, start: number): void {
    if (
      bytes.length < start + HEADER_BYTES ||
      this.#view.getUint16(start, true) !== MAGIC
    ) throw new UnknownField("the kernel's types are of an unknown format");
    const word = (at: number) => this.#view.getUint32(at, true);
    const [header, types, length, names, namesLength] = [4, 8, 12, 16, 20].map(
      (at) => word(start + at),
    );
    const text = start + header + names;
    this.#names += new TextDecoder("latin1").decode(
      bytes.subarray(text, text + namesLength),
    );
    const end = start + header + types + length;
    for (let at = start + header + types; at < end;) {
      this.#places.push(at);
      const info = word(at + 4);
      const kind = info >>> 24 & 0x1f;
      if (kind === KIND.struct) {
        this.#structures.push({ name: word(at), at });
      }
      at += 12 + (ONCE[kind] ?? 0) + (EACH[kind] ?? 0) * (info & 0xffff);
    }
  }

  /** Structures of these names; several may have the same one. */
  named(names: readonly string[]): Record<string, number[]> {
    const byOffset = new Map(
      names.map((name) => [this.#names.indexOf(`\0${name}\0`) + 1, name]),
    );
    const found: Record<string, number[]> = Object.fromEntries(
      names.map((name) => [name, []]),
    );
    for (const { name, at } of this.#structures) {
      const known = name === 0 ? undefined : byOffset.get(name);
      if (known !== undefined) found[known].push(at);
    }
    return found;
  }

  /** Of the first that has all the fields. */
  offsets(
    name: string,
    places: readonly number[],
    paths: readonly string[],
  ): FieldOffsets {
    let missing: string | undefined;
    for (const at of places) {
      const offsets = new Map<string, number>();
      for (const path of paths) {
        const offset = path === END
          ? 8 * this.#view.getUint32(at + 8, true)
          : this.#find(at, path.split("."));
        if (offset === undefined) missing = path;
        else offsets.set(path, offset);
      }
      if (offsets.size === paths.length) return offsets;
    }
    throw new UnknownField(
      missing === undefined
        ? `this kernel tells of no structure ${name}`
        : `this kernel's structure ${name} has no ${missing}`,
    );
  }

  #find(at: number, [field, ...rest]: readonly string[]): number | undefined {
    const info = this.#view.getUint32(at + 4, true);
    for (let i = 0; i < (info & 0xffff); i++) {
      const member = at + 12 + i * MEMBER_BYTES;
      const name = this.#view.getUint32(member, true);
      const own = this.#view.getUint32(member + 8, true);
      const offset = (info & HAS_BITFIELDS) === 0 ? own : own & 0xff_ffff;
      // Members of a structure without a name are those of the outer one.
      const inner = name === 0
        ? this.#inside(member, [field, ...rest])
        : !this.#is(name, field)
        ? undefined
        : rest.length === 0
        ? 0
        : this.#inside(member, rest);
      if (inner !== undefined) return offset + inner;
    }
    return undefined;
  }

  #is(offset: number, name: string): boolean {
    return this.#names.startsWith(`${name}\0`, offset);
  }

  #inside(member: number, path: readonly string[]): number | undefined {
    let at = this.#places[this.#view.getUint32(member + 4, true)];
    for (;;) {
      const kind = this.#view.getUint32(at + 4, true) >>> 24 & 0x1f;
      switch (kind) {
        case KIND.struct:
        case KIND.union:
          return this.#find(at, path);
        case KIND.typedef:
        case KIND.volatile:
        case KIND.const:
        case KIND.typeTag:
          at = this.#places[this.#view.getUint32(at + 8, true)];
          break;
        default:
          return undefined;
      }
    }
  }
}
