/**
 * Has to be evaluated before protobufjs is. It looks for `process`, `Buffer`
 * and the npm package `long`; in Deno the first two exist, but the first touch
 * of each costs milliseconds, and the third is more than we need. While it
 * loads it therefore finds none of them, and a `Long` of two numbers.
 */

/** A 64-bit value as its two halves, the form in which protobufjs takes it. */
export class Halves {
  constructor(
    public low: number,
    public high: number,
    public readonly unsigned: boolean,
  ) {}
}

const hidden: Record<string, unknown> = {
  process: undefined,
  Buffer: undefined,
  Long: Halves,
};

const before = Object.keys(hidden).map((name) =>
  [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const
);
for (const [name, value] of Object.entries(hidden)) {
  Object.defineProperty(globalThis, name, {
    value,
    configurable: true,
    writable: true,
  });
}

/** Puts the globals back as they were, without touching them. */
export function protobufHasLoaded(): void {
  for (const [name, descriptor] of before) {
    if (descriptor) Object.defineProperty(globalThis, name, descriptor);
    else Reflect.deleteProperty(globalThis, name);
  }
}
