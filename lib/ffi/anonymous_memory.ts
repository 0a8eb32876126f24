/** Memory that V8 knows nothing of: for contents that JavaScript never sees. */
import { syscall } from "./syscall.ts";

const PROT_READ_WRITE = 3n;
const MAP_PRIVATE_ANONYMOUS = 0x22n;
const NO_FILE = 0xffffffffn;

export class AnonymousMemory implements Disposable {
  /** Valid until it is disposed of. */
  readonly address: number;

  /**
   * @param bytes more than 0
   * @throws SyscallError
   */
  constructor(readonly bytes: number) {
    this.address = Number(
      syscall(
        "mmap",
        0n,
        BigInt(bytes),
        PROT_READ_WRITE,
        MAP_PRIVATE_ANONYMOUS,
        NO_FILE,
      ),
    );
  }

  [Symbol.dispose](): void {
    syscall("munmap", BigInt(this.address), BigInt(this.bytes));
  }
}
