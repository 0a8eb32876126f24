/**
 * Reads what a program for the agent holds out of its encoded form, so that
 * tests can look at each operation, or execute it on a model of a task.
 */
import { AGENT_CALLS, type Program, YIELD } from "../program.ts";
import { NR } from "../syscall.ts";

export type CallName = keyof typeof NR | keyof typeof AGENT_CALLS;

/** An argument as the agent resolves it. */
export interface DecodedArgument {
  readonly kind: "immediate" | "result" | "data";
  /** The number, the index of the operation, or the offset in the data. */
  readonly value: bigint;
}

export interface DecodedOperation {
  readonly name: CallName;
  readonly args: readonly DecodedArgument[];
  readonly mayFail: boolean;
  readonly whole: boolean;
  /** The number of the descriptor that it makes, and whether execve closes it. */
  readonly settled?: { readonly fd: number; readonly cloexec: boolean };
  readonly purpose: string;
}

export interface DecodedProgram {
  readonly operations: readonly DecodedOperation[];
  /** The data, with the addresses it holds as for {@link ADDRESS}. */
  readonly data: DataView<ArrayBuffer>;
  /** Address of the data. */
  readonly dataAddress: bigint;
}

/** Where decoded programs are said to be. */
export const ADDRESS = 0x7000_0000_0000n;

const NAMES = new Map<bigint, CallName>(
  Object.entries({ ...NR, ...AGENT_CALLS }).map((
    [name, nr],
  ) => [BigInt(nr), name as CallName]),
);

const KINDS = ["immediate", "result", "data"] as const;

export function decodeProgram(program: Program): DecodedProgram {
  const bytes = program.encode(ADDRESS, YIELD.stop);
  const view = new DataView(bytes.buffer);
  const word = (at: number) => view.getBigUint64(at, true);
  const count = Number(word(0));
  const first = Number(word(8) - ADDRESS);
  const dataAddress = word(24);
  const operations = Array.from({ length: count }, (_, i) => {
    const at = first + i * 64;
    const kinds = view.getUint32(at + 56, true);
    const flags = view.getUint32(at + 60, true);
    const name = NAMES.get(word(at));
    if (name === undefined) throw new Error(`call ${word(at)} has no name`);
    return {
      name,
      args: Array.from({ length: 6 }, (_, k) => ({
        kind: KINDS[kinds >> (4 * k) & 15],
        value: word(at + 8 + k * 8),
      })),
      mayFail: (flags & 1) !== 0,
      whole: (flags & 2) !== 0,
      ...(flags & 4) === 0 ? {} : {
        settled: {
          fd: Number(word(at + 8 + 5 * 8)),
          cloexec: (flags & 8) !== 0,
        },
      },
      purpose: program.purpose(i),
    };
  });
  const start = Number(dataAddress - ADDRESS);
  return {
    operations,
    data: new DataView(bytes.buffer, start),
    dataAddress,
  };
}

/** The terminated bytes at an offset of the data, as Latin-1 text. */
export function textAt({ data }: DecodedProgram, offset: bigint): string {
  let text = "";
  for (let at = Number(offset);; at++) {
    const byte = data.getUint8(at);
    if (byte === 0) return text;
    text += String.fromCharCode(byte);
  }
}
