/** Programs of system calls (program.ts) that ckpt itself carries out. */
import { library } from "./library.ts";
import type { Outcome, Program } from "./program.ts";
import { addressOf } from "./syscall.ts";

let room = new Uint8Array(65536);

/** Runs a program in ckpt, with one call of native code. */
export function runOwnProgram(program: Program): Outcome {
  const { size } = program;
  if (size > room.length) room = new Uint8Array(2 * size);
  const bytes = room.subarray(0, size);
  program.encodeInto(bytes, addressOf(bytes), 0n);
  library("sockets").ckpt_run_own_program(bytes);
  return program.outcome(bytes);
}
