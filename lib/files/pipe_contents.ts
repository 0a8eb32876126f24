/**
 * What is in a pipe or fifo, read without taking it out: tee(2) makes a copy of
 * the kernel's buffers in a pipe of ckpt's own, which is read then. So its
 * users may even run; they only have to stand still for all pipes together to
 * be as they were at one moment.
 */
import { CkptError, EXIT, type ExitCode } from "../error.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";

/** A descriptor of a pipe. */
export interface PipeEnd {
  /** A process, or a thread of it that has not ended. */
  readonly pid: number;
  readonly fd: number;
  /** O_* flags. */
  readonly flags: number;
}

export interface PipeContent {
  /** F_GETPIPE_SZ, bytes. */
  readonly size: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /**
   * Lengths of the packets that the bytes were written in (O_DIRECT), which
   * read(2) gives one by one; undefined for a plain stream.
   */
  readonly packets: readonly number[] | undefined;
}

const F_GETPIPE_SZ = 1032n;
const F_SETPIPE_SZ = 1031n;
const FIONREAD = 0x541bn;
const SPLICE_F_NONBLOCK = 2n;
const EINVAL = 22;
/** The kernel's default of 16 pages (pipe(7)). */
export const DEFAULT_PIPE_SIZE = 65536;

/** Reads many pipes, one after the other, with two pipes of its own. */
export class PipeReader implements Disposable {
  readonly #copies: readonly [CopyPipe, CopyPipe] = [
    new CopyPipe(),
    new CopyPipe(),
  ];

  /**
   * @param ends all descriptors of one pipe
   * @throws CkptError refused, when its content cannot be told apart; failed,
   * when the kernel does not let it be read
   */
  read(ends: readonly PipeEnd[], name: string): PipeContent {
    try {
      return this.#read(ends, name);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw error.call === "tee" && error.errno === EINVAL
        ? refusal(
          ends,
          name,
          "it is a pipe for notifications of the kernel, " +
            "which is not supported",
        )
        : failure(EXIT.failed, ends, name, error.message);
    }
  }

  #read(ends: readonly PipeEnd[], name: string): PipeContent {
    const reading = ends.find(({ flags }) =>
      (flags & O.PATH) === 0 && (flags & O.ACCMODE) !== O.WRONLY
    );
    const end = reading ?? ends.find(({ flags }) => (flags & O.PATH) === 0);
    if (end === undefined) return EMPTY;
    using own = OwnDescriptor.of(end);
    const size = Number(syscall("fcntl", own.number, F_GETPIPE_SZ));
    const length = unread(own.number);
    if (length === 0) return { ...EMPTY, size };
    if (reading !== undefined) {
      return { size, ...this.#copy(own.number, size, length, ends, name) };
    }
    // Nobody can read it, until a descriptor is opened anew; closing that one
    // sends the signals of O_ASYNC.
    if (ends.some(({ flags }) => (flags & O.ASYNC) !== 0)) {
      throw refusal(
        ends,
        name,
        "it holds bytes that nobody can read, and " +
          "gives signals (O_ASYNC), which is not supported",
      );
    }
    using anew = new OwnDescriptor(
      open(`/proc/${end.pid}/fd/${end.fd}`, O.RDONLY | O.NONBLOCK),
    );
    return { size, ...this.#copy(anew.number, size, length, ends, name) };
  }

  #copy(
    from: bigint,
    size: number,
    length: number,
    ends: readonly PipeEnd[],
    name: string,
  ): Pick<PipeContent, "bytes" | "packets"> {
    const [copy, second] = this.#copies;
    copy.fill(from, size, length);
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    for (let done = 0; done < length;) {
      const chunk = copy.read(length - done);
      done += chunk.length;
      chunks.push(chunk);
    }
    copy.fill(from, size, length);
    const endsWithPacket = copy.endsWithPacket(length);
    if (chunks.length === 1 && !endsWithPacket) {
      return { bytes: chunks[0], packets: undefined };
    }
    // Every read above but the last one ended with a packet. Plain bytes may
    // have come before it: of a packet a read of one byte takes all.
    second.fill(from, size, length);
    const packets = chunks.map((chunk) => chunk.length);
    if (
      !endsWithPacket || packets.some((packet) => second.readByte() !== packet)
    ) {
      throw refusal(
        ends,
        name,
        "it holds packets (O_DIRECT) beside plain bytes, which is not supported",
      );
    }
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    return { bytes, packets };
  }

  [Symbol.dispose](): void {
    this.#copies.forEach((copy) => copy.close());
  }
}

function refusal(ends: readonly PipeEnd[], name: string, why: string) {
  return failure(EXIT.refused, ends, name, why);
}

function failure(
  exit: ExitCode,
  [{ pid, fd }]: readonly PipeEnd[],
  name: string,
  why: string,
): CkptError {
  return new CkptError(exit, `reading what is in ${name}`, [{
    object: `descriptor ${fd} (${name}) of task ${pid}`,
    why,
  }]);
}

const EMPTY: PipeContent = {
  size: DEFAULT_PIPE_SIZE,
  bytes: new Uint8Array(0),
  packets: undefined,
};

/** A descriptor of ckpt's own for a moment. */
class OwnDescriptor implements Disposable {
  readonly number: bigint;

  constructor(fd: number) {
    this.number = BigInt(fd);
  }

  static of({ pid, fd }: PipeEnd): OwnDescriptor {
    return new OwnDescriptor(getDescriptorOf(pid, fd));
  }

  [Symbol.dispose](): void {
    close(Number(this.number));
  }
}

/** FIONREAD: bytes in a pipe; may be asked at either end. */
function unread(fd: bigint): number {
  const count = new Int32Array(1);
  syscall("ioctl", fd, FIONREAD, addressOf(new Uint8Array(count.buffer)));
  return count[0];
}

/** A pipe of ckpt's own that takes copies. Made when it is first used. */
class CopyPipe {
  #ends: readonly [reading: bigint, writing: bigint] | undefined;
  #size = DEFAULT_PIPE_SIZE;

  #open(): readonly [bigint, bigint] {
    if (this.#ends === undefined) {
      const ends = new Int32Array(2);
      syscallBuffer0(
        "pipe2",
        new Uint8Array(ends.buffer),
        BigInt(O.CLOEXEC | O.NONBLOCK),
      );
      this.#ends = [BigInt(ends[0]), BigInt(ends[1])];
    }
    return this.#ends;
  }

  /** Copies all that is in a pipe of this size. */
  fill(from: bigint, size: number, length: number): void {
    const [reading, writing] = this.#open();
    // What is left of an earlier one, of which not all was read.
    for (let left = unread(reading); left > 0; left = unread(reading)) {
      this.read(left);
    }
    // It has a buffer for each page; each takes a copy of one.
    if (this.#size < size) {
      this.#size = Number(
        syscall("fcntl", writing, F_SETPIPE_SZ, BigInt(size)),
      );
    }
    const copied = Number(
      syscall("tee", from, writing, BigInt(length), SPLICE_F_NONBLOCK),
    );
    if (copied !== length) {
      throw new Error(`tee(2) copied ${copied} of ${length} bytes`);
    }
  }

  /** One read(2). */
  read(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    const count = syscallBuffer1(
      "read",
      this.#open()[0],
      bytes,
      BigInt(length),
    );
    return bytes.subarray(0, Number(count));
  }

  /** How many bytes are gone after one of them is read. */
  readByte(): number {
    const [reading] = this.#open();
    const before = unread(reading);
    this.read(1);
    return before - unread(reading);
  }

  /**
   * Whether the last of its `length` bytes ends a packet: then a read does not
   * go on to a byte behind it. Takes them all out.
   */
  endsWithPacket(length: number): boolean {
    const [reading, writing] = this.#open();
    using nowhere = new OwnDescriptor(open("/dev/null", O.WRONLY));
    // Unlike a read, it leaves the rest of a packet.
    for (let left = length - 1; left > 0;) {
      left -= Number(
        syscall("splice", reading, 0n, nowhere.number, 0n, BigInt(left)),
      );
    }
    syscallBuffer1("write", writing, new Uint8Array(1), 1n);
    return this.read(2).length === 1;
  }

  close(): void {
    this.#ends?.forEach((end) => close(Number(end)));
  }
}
