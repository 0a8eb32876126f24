/**
 * Reads the kernel's own memory by a small BPF program (bpf(2)): what a kernel
 * holds, and has no call to tell. Nothing is changed by it, so that nothing has
 * to be put back should ckpt be killed. Needs Linux 5.14, CAP_BPF and
 * CAP_PERFMON (or CAP_SYS_ADMIN) in the first user namespace, and a kernel that
 * is not locked down for confidentiality.
 */
import { addressOf, close, syscall } from "./syscall.ts";

const CMD = { mapCreate: 0, mapLookup: 1, progLoad: 5, progRun: 10 } as const;
const MAP_ARRAY = 2;
const PROG_SYSCALL = 31;
const SLEEPABLE = 1 << 4;
/** union bpf_attr as far as it is used here, in bytes. */
const ATTR_BYTES = 80;

/** Bytes that one run of the program can read. */
const MOST = 16384;

/** Helpers (bpf-helpers(7)). */
const LOOKUP = 1;
const CURRENT_TASK = 35;
const PROBE_READ_KERNEL = 113;

/** struct bpf_insn. */
function instruction(
  code: number,
  to: number,
  from: number,
  offset = 0,
  value = 0,
): bigint {
  return BigInt(code) | BigInt(to | from << 4) << 8n |
    BigInt(offset & 0xffff) << 16n | BigInt(value >>> 0) << 32n;
}

const move = (to: number, from: number) => instruction(0xbf, to, from);
const set = (to: number, value: number) => instruction(0xb7, to, 0, 0, value);
const call = (helper: number) => instruction(0x85, 0, 0, 0, helper);
const load64 = (to: number, from: number, offset: number) =>
  instruction(0x79, to, from, offset);
const EXIT = instruction(0x95, 0, 0);

/**
 * Of {address, length}: copies so many bytes of the kernel's memory into the
 * map; of the address 0, that of the task that runs it.
 */
function programFor(map: number): BigUint64Array<ArrayBuffer> {
  return BigUint64Array.of(
    load64(6, 1, 0), // the address
    load64(7, 1, 8), // the length
    instruction(0x62, 10, 0, -4, 0), // the key 0, on the stack
    instruction(0x18, 1, 1, 0, map), // the map, in two instructions
    0n,
    move(2, 10),
    instruction(0x07, 2, 0, 0, -4),
    call(LOOKUP),
    instruction(0x15, 0, 0, 11, 0), // none: end
    move(8, 0),
    instruction(0x55, 6, 0, 4, 0), // an address: read
    call(CURRENT_TASK),
    instruction(0x7b, 8, 0, 0), // into the map
    set(0, 0),
    EXIT,
    instruction(0x25, 7, 0, 4, MOST), // too long: end
    move(1, 8),
    move(2, 7),
    move(3, 6),
    call(PROBE_READ_KERNEL),
    EXIT,
  );
}

/** The helpers are for programs under a licence of this kind. */
const LICENCE = new TextEncoder().encode("Dual MIT/GPL\0");

/** A pointer led nowhere: what it belonged to is gone, or just changes. */
export class NoSuchMemory extends Error {
  override readonly name = "NoSuchMemory";

  constructor(address: bigint) {
    super(`the kernel has no memory at 0x${address.toString(16)}`);
  }
}

export class KernelMemory implements Disposable {
  readonly #map: number;
  readonly #program: number;
  readonly #context = new BigUint64Array(2);
  readonly #value = new Uint8Array(MOST);
  readonly #key = new Uint8Array(4);

  private constructor() {
    this.#map = bpf(CMD.mapCreate, (attr) => {
      [MAP_ARRAY, 4, MOST, 1].forEach((value, i) =>
        attr.setUint32(i * 4, value, true)
      );
    });
    const program = programFor(this.#map);
    try {
      this.#program = bpf(CMD.progLoad, (attr) => {
        attr.setUint32(0, PROG_SYSCALL, true);
        attr.setUint32(4, program.length, true);
        attr.setBigUint64(8, addressOf(new Uint8Array(program.buffer)), true);
        attr.setBigUint64(16, addressOf(LICENCE), true);
        attr.setUint32(44, SLEEPABLE, true);
      });
    } catch (error) {
      close(this.#map);
      throw error;
    }
  }

  /** @throws SyscallError where the kernel or its keeper does not allow it */
  static open(): KernelMemory {
    return new KernelMemory();
  }

  /** The address of ckpt's own struct task_struct. */
  ownTask(): bigint {
    return new DataView(this.#run(0n, 8).buffer).getBigUint64(0, true);
  }

  /** @throws NoSuchMemory */
  read(address: bigint, length: number): Uint8Array<ArrayBuffer> {
    if (address === 0n) throw new NoSuchMemory(address);
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += MOST) {
      bytes.set(
        this.#run(address + BigInt(at), Math.min(MOST, length - at)),
        at,
      );
    }
    return bytes;
  }

  pointer(address: bigint): bigint {
    return new DataView(this.read(address, 8).buffer).getBigUint64(0, true);
  }

  #run(address: bigint, length: number): Uint8Array<ArrayBuffer> {
    this.#context[0] = address;
    this.#context[1] = BigInt(length);
    const context = new Uint8Array(this.#context.buffer);
    let failed = 0;
    bpf(CMD.progRun, (attr) => {
      attr.setUint32(0, this.#program, true);
      attr.setUint32(40, context.length, true);
      attr.setBigUint64(48, addressOf(context), true);
    }, (attr) => failed = attr.getInt32(4, true));
    if (failed !== 0) throw new NoSuchMemory(address);
    bpf(CMD.mapLookup, (attr) => {
      attr.setUint32(0, this.#map, true);
      attr.setBigUint64(8, addressOf(this.#key), true);
      attr.setBigUint64(16, addressOf(this.#value), true);
    });
    return this.#value.slice(0, length);
  }

  [Symbol.dispose](): void {
    close(this.#program);
    close(this.#map);
  }
}

/** @param write fills in the attributes; those that are answers follow */
function bpf(
  command: number,
  write: (attr: DataView) => void,
  read?: (attr: DataView) => void,
): number {
  const bytes = new Uint8Array(ATTR_BYTES);
  const attr = new DataView(bytes.buffer);
  write(attr);
  const size = BigInt(ATTR_BYTES);
  const result = syscall("bpf", BigInt(command), addressOf(bytes), size);
  read?.(attr);
  return Number(result);
}
