/** Random messages and damage that are the same in every run. */

import { type Field, type MessageName, messageType } from "../message.ts";

/** A generator of numbers in [0, 1) from a seed: mulberry32. */
export function seededRandom(seed: number): () => number {
  return () => {
    seed = seed + 0x6d2b79f5 | 0;
    let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };
}

/** A message with any values its fields can have. */
export function randomMessage(
  random: () => number,
  name: MessageName | string,
  depth = 0,
): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  for (const field of messageType(name).fields) {
    if (field.label === "repeated") {
      const length = depth > 3 ? 0 : Math.floor(random() * 4);
      message[field.name] = Array.from(
        { length },
        () => randomValue(random, field, depth),
      );
    } else if (field.label === "required" || random() < 0.5) {
      message[field.name] = randomValue(random, field, depth);
    }
  }
  return message;
}

function randomValue(
  random: () => number,
  field: Field,
  depth: number,
): unknown {
  switch (field.type) {
    case "uint32":
      return randomInteger(random, 32, false);
    case "int32":
    case "sint32":
    case "enum":
      return randomInteger(random, 32, true);
    case "uint64":
    case "fixed64":
      return BigInt.asUintN(64, randomBigInt(random));
    case "int64":
    case "sint64":
      return BigInt.asIntN(64, randomBigInt(random));
    case "bool":
      return random() < 0.5;
    case "bytes":
      return randomBytes(random);
    case "string":
      return randomText(random);
    case "message":
      return randomMessage(random, field.refersTo, depth + 1);
  }
}

/** Small and large ones alike: the number of bits is random too. */
function randomInteger(random: () => number, bits: number, signed: boolean) {
  const value = Math.floor(random() * 2 ** bits) >>>
    Math.floor(random() * bits);
  return signed ? value | 0 : value;
}

function randomBigInt(random: () => number): bigint {
  const word = () => BigInt(Math.floor(random() * 2 ** 32));
  return (word() << 32n | word()) >> BigInt(Math.floor(random() * 64));
}

function randomBytes(random: () => number): Uint8Array {
  const length = Math.floor(random() * 300);
  return Uint8Array.from({ length }, () => Math.floor(random() * 256));
}

/** ASCII, other characters, and bytes that are no characters. */
function randomText(random: () => number): string {
  const length = Math.floor(random() * (random() < 0.1 ? 300 : 20));
  const alphabet = ["a", "/", "é", "語", "🦀", "\udc80", "\udcff", " "];
  return Array.from(
    { length },
    () => alphabet[Math.floor(random() * alphabet.length)],
  ).join("");
}
