/** Makes damaged images out of a good one. */

/** One change of one file. */
export interface Damage {
  /** What was done, for the message of a failing test. */
  what: string;
  /** The file that was changed. */
  name: string;
  /** Its new content; undefined when it is to be missing. */
  bytes: Uint8Array | undefined;
}

/** Lengths that a careless reader would allocate or overflow on. */
const HUGE = [0x7fffffff, 0x80000000, 0xffffffff, 0x10000000];

/**
 * Every file missing, empty, cut off, with bits flipped, with huge lengths,
 * with another magic, and in the place of another file.
 * @param files the good image, without page files
 * @param random decides which bits are flipped
 * @param step cuts and flips at every `step`th byte
 */
export function* damages(
  files: ReadonlyMap<string, Uint8Array>,
  random: () => number,
  step: number,
): Generator<Damage> {
  for (const [name, good] of files) {
    yield { what: "missing", name, bytes: undefined };
    const offset = Math.floor(random() * step);
    for (let i = offset; i < good.length; i += step) {
      yield { what: `cut at ${i}`, name, bytes: good.slice(0, i) };
      const bit = Math.floor(random() * 8);
      yield {
        what: `bit ${bit} of byte ${i} flipped`,
        name,
        bytes: changed(good, (bytes) => bytes[i] ^= 1 << bit),
      };
    }
    for (let i = 0; i + 4 <= good.length; i += step) {
      const length = HUGE[Math.floor(random() * HUGE.length)];
      yield {
        what: `0x${length.toString(16)} at ${i}`,
        name,
        bytes: changed(
          good,
          (bytes) => new DataView(bytes.buffer).setUint32(i, length, true),
        ),
      };
      yield {
        what: `a varint of ten bytes at ${i}`,
        name,
        bytes: changed(good, (bytes) => bytes.fill(0xff, i, i + 10)),
      };
    }
    const longer = new Uint8Array(good.length + 3);
    longer.set(good);
    yield { what: "three stray bytes", name, bytes: longer };
    for (const [other, bytes] of files) {
      if (other !== name) yield { what: `content of ${other}`, name, bytes };
    }
  }
}

function changed(
  good: Uint8Array,
  change: (bytes: Uint8Array<ArrayBuffer>) => void,
): Uint8Array {
  const bytes = Uint8Array.from(good);
  change(bytes);
  return bytes;
}
