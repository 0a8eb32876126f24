/** The memory of another task, through /proc/PID/mem (proc_pid_mem(5)). */
import { CkptError, EXIT } from "../error.ts";
import { describeErrno, EACCES, EPERM, EROFS, ESRCH } from "./errno.ts";
import { close, O, open, pread, pwrite, SyscallError } from "./syscall.ts";

/** Reads and writes regardless of the pages' protection. */
export class TaskMemory implements Disposable {
  private constructor(readonly pid: number, readonly fd: number) {}

  /**
   * @param tid a thread of it that has not ended
   * @throws CkptError when the task is gone or may not be traced
   */
  static open(pid: number, tid = pid): TaskMemory {
    try {
      return new TaskMemory(pid, open(`/proc/${tid}/mem`, O.RDWR));
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const denied = error.errno === EACCES || error.errno === EPERM;
      const readOnly = error.errno === EROFS;
      throw new CkptError(
        denied ? EXIT.permission : readOnly ? EXIT.failed : EXIT.gone,
        `opening the memory of task ${pid}`,
        [{
          object: readOnly ? `/proc/${tid}/mem` : `task ${pid}`,
          why: describeErrno(error.errno),
          remedy: denied
            ? "run ckpt as root, with the capability CAP_SYS_PTRACE"
            : readOnly
            ? "run ckpt where /proc can be written: mount -o remount,rw /proc"
            : undefined,
        }],
        { cause: error },
      );
    }
  }

  /** @throws CkptError when not all of it can be read */
  read(address: bigint, length: number): Uint8Array<ArrayBuffer> {
    const buffer = new Uint8Array(length);
    this.#access("reading", address, () => {
      if (pread(this.fd, buffer, address) < length) throw noMemory("pread64");
    });
    return buffer;
  }

  readWord(address: bigint): bigint {
    return new DataView(this.read(address, 8).buffer).getBigUint64(0, true);
  }

  /** @throws CkptError when not all of it can be written */
  write(address: bigint, bytes: Uint8Array<ArrayBuffer>): void {
    this.#access("writing", address, () => {
      if (pwrite(this.fd, bytes, address) < bytes.length) {
        throw noMemory("pwrite64");
      }
    });
  }

  #access(doing: string, address: bigint, access: () => void): void {
    try {
      access();
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw new CkptError(
        error.errno === ESRCH ? EXIT.gone : EXIT.failed,
        `${doing} the memory of task ${this.pid}`,
        [{
          object: `address 0x${address.toString(16)}`,
          why: describeErrno(error.errno),
        }],
        { cause: error },
      );
    }
  }

  [Symbol.dispose](): void {
    close(this.fd);
  }
}

/**
 * No bytes are moved only when the task has no memory any more, because it
 * ended (mem_rw in fs/proc/base.c); an address without memory is an error.
 */
function noMemory(call: string): SyscallError {
  return new SyscallError(call, ESRCH);
}
