/**
 * Reads the kernel's own memory by a small BPF program (bpf(2)): what a kernel
 * holds, and has no call to tell. Nothing is changed by it, so that nothing has
 * to be put back should ckpt be killed. Needs Linux 5.14, CAP_BPF and
 * CAP_PERFMON (or CAP_SYS_ADMIN) in the first user namespace, and a kernel that
 * is not locked down for confidentiality.
 */
import {
  add,
  bpf,
  call,
  type Code,
  createMap,
  EXIT,
  HELPER,
  jumpIfAbove,
  jumpIfEqual,
  jumpIfNot,
  load,
  loadMap,
  loadProgram,
  move,
  set,
  store,
  storeValue,
} from "./bpf.ts";
import { addressOf, close } from "./syscall.ts";

/** BPF_PROG_TYPE_SYSCALL, BPF_F_SLEEPABLE. */
const KIND = { type: 31, flags: 1 << 4 };

/** Bytes that one run of the program can read. */
const MOST = 16384;

/**
 * Of {address, length}: copies so many bytes of the kernel's memory into the
 * map; of the address 0, that of the task that runs it.
 */
function programFor(map: number): Code {
  return [
    load(6, 1, 0), // the address
    load(7, 1, 8), // the length
    storeValue(10, -4, 0, 4), // the key 0, on the stack
    loadMap(1, map),
    move(2, 10),
    add(2, -4),
    call(HELPER.lookup),
    jumpIfEqual(0, 0, "end"),
    move(8, 0),
    jumpIfNot(6, 0, "read"),
    call(HELPER.currentTask),
    store(8, 0, 0), // into the map
    set(0, 0),
    EXIT,
    "read",
    jumpIfAbove(7, MOST, "end"),
    move(1, 8),
    move(2, 7),
    move(3, 6),
    call(HELPER.probeReadKernel),
    "end",
    EXIT,
  ];
}

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
    this.#map = createMap(MOST);
    try {
      this.#program = loadProgram(programFor(this.#map), KIND);
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
    bpf("progRun", (attr) => {
      attr.setUint32(0, this.#program, true);
      attr.setUint32(40, context.length, true);
      attr.setBigUint64(48, addressOf(context), true);
    }, (attr) => failed = attr.getInt32(4, true));
    if (failed !== 0) throw new NoSuchMemory(address);
    bpf("mapLookup", (attr) => {
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
