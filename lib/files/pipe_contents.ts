/**
 * What is in a pipe or fifo, read without taking it out: tee(2) makes a copy of
 * the kernel's buffers in a pipe of ckpt's own, which is read then. So its
 * users may even run; they only have to stand still for all pipes together to
 * be as they were at one moment.
 */
import { CkptError, EXIT, type ExitCode } from "../error.ts";
import { Calls, Slots } from "../ffi/calls.ts";
import { closeAll, getDescriptors, openPidfd } from "../ffi/pidfd.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
  SyscallError,
  trySyscall,
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

const F_GETPIPE_SZ = 1032;
const F_SETPIPE_SZ = 1031n;
const FIONREAD = 0x541b;
const SPLICE_F_NONBLOCK = 2n;
const EINVAL = 22;
/** The kernel's default of 16 pages (pipe(7)). */
export const DEFAULT_PIPE_SIZE = 65536;

/** A pipe by all its descriptors, and what errors call it. */
export interface PipeToRead {
  readonly ends: readonly PipeEnd[];
  readonly link: string;
}

/** So many are open in ckpt at the same time. */
const AT_ONCE = 256;

/** Reads many pipes, with two pipes of its own. */
export class PipeReader implements Disposable {
  readonly #copies: readonly [CopyPipe, CopyPipe] = [
    new CopyPipe(),
    new CopyPipe(),
  ];

  /**
   * @returns what is in each, in their order
   * @throws CkptError refused, when the content of one cannot be told apart;
   * failed, when the kernel does not let it be read
   */
  readAll(pipes: readonly PipeToRead[]): PipeContent[] {
    const contents = pipes.map(() => EMPTY);
    const asked = pipes.flatMap(({ ends }, i) => {
      const end = readingEnd(ends) ?? ends.find(isOpen);
      return end === undefined ? [] : [{ i, end }];
    });
    for (const [pid, all] of Map.groupBy(asked, ({ end }) => end.pid)) {
      for (let first = 0; first < all.length; first += AT_ONCE) {
        const some = all.slice(first, first + AT_ONCE);
        const found = this.#readSome(
          pid,
          some.map(({ end }) => end.fd),
          some.map(({ i }) => pipes[i]),
        );
        some.forEach(({ i }, n) => contents[i] = found[n]);
      }
    }
    return contents;
  }

  /** @param fds of the process, one of each pipe */
  #readSome(
    pid: number,
    fds: readonly number[],
    pipes: readonly PipeToRead[],
  ): PipeContent[] {
    let own: number[] = [];
    try {
      using pidfd = new OwnDescriptor(openPidfd(pid));
      own = getDescriptors(Number(pidfd.number), fds);
      const known = sizesOf(own);
      return own.map((fd, i) =>
        known[i].length === 0
          ? { ...EMPTY, size: known[i].size }
          : this.#read(BigInt(fd), known[i], pipes[i])
      );
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // Which of them it is about.
      return pipes.length > 1
        ? pipes.flatMap((pipe, i) => this.#readSome(pid, [fds[i]], [pipe]))
        : explain(error, pipes[0]);
    } finally {
      closeAll(own);
    }
  }

  /** @param own a descriptor of ckpt's own for one of its ends */
  #read(
    own: bigint,
    { size, length }: { size: number; length: number },
    { ends, link }: PipeToRead,
  ): PipeContent {
    if (readingEnd(ends) !== undefined) {
      return { size, ...this.#copy(own, size, length, ends, link) };
    }
    // Nobody can read it, until a descriptor is opened anew; closing that one
    // sends the signals of O_ASYNC.
    if (ends.some(({ flags }) => (flags & O.ASYNC) !== 0)) {
      throw refusal(
        ends,
        link,
        "it holds bytes that nobody can read, and " +
          "gives signals (O_ASYNC), which is not supported",
      );
    }
    const { pid, fd } = ends.find(isOpen)!;
    using anew = new OwnDescriptor(
      open(`/proc/${pid}/fd/${fd}`, O.RDONLY | O.NONBLOCK),
    );
    return { size, ...this.#copy(anew.number, size, length, ends, link) };
  }

  #copy(
    from: bigint,
    size: number,
    length: number,
    ends: readonly PipeEnd[],
    name: string,
  ): Pick<PipeContent, "bytes" | "packets"> {
    const [copy, second] = this.#copies;
    const plain = copy.takePlain(from, size, length);
    if (plain !== undefined) return { bytes: plain, packets: undefined };
    copy.fill(from, size, length);
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    for (let done = 0; done < length;) {
      const chunk = copy.read(length - done);
      done += chunk.length;
      chunks.push(chunk);
    }
    copy.fill(from, size, length);
    const endsWithPacket = copy.endsWithPacket(length);
    // Where there was no room for a byte behind it.
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

function isOpen({ flags }: PipeEnd): boolean {
  return (flags & O.PATH) === 0;
}

function readingEnd(ends: readonly PipeEnd[]): PipeEnd | undefined {
  return ends.find((end) =>
    isOpen(end) && (end.flags & O.ACCMODE) !== O.WRONLY
  );
}

function explain(error: SyscallError, { ends, link }: PipeToRead): never {
  throw error.call === "tee" && error.errno === EINVAL
    ? refusal(
      ends,
      link,
      "it is a pipe for notifications of the kernel, which is not supported",
    )
    : failure(EXIT.failed, ends, link, error.message);
}

/** F_GETPIPE_SZ and FIONREAD, of descriptors of ckpt's own. */
function sizesOf(
  fds: readonly number[],
): { size: number; length: number }[] {
  const numbers = Slots.of(fds);
  const lengths = new Slots(8, fds.length);
  const calls = new Calls();
  const fd = { loaded: numbers };
  const sized = calls.add("fcntl", [fd, F_GETPIPE_SZ, 0]);
  const counted = calls.add("ioctl", [fd, FIONREAD, { slots: lengths }]);
  calls.run(fds.length);
  return fds.map((_, i) => {
    const size = calls.result(i, sized);
    if (size < 0) throw new SyscallError("fcntl", -size);
    const result = calls.result(i, counted);
    if (result < 0) throw new SyscallError("ioctl", -result);
    return { size, length: lengths.view.getInt32(8 * i, true) };
  });
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

  [Symbol.dispose](): void {
    close(Number(this.number));
  }
}

/** FIONREAD: bytes in a pipe; may be asked at either end. */
function unread(fd: bigint): number {
  const count = new Int32Array(1);
  syscall(
    "ioctl",
    fd,
    BigInt(FIONREAD),
    addressOf(new Uint8Array(count.buffer)),
  );
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

  /**
   * What is in a pipe of this size, if it has no packets: then one read(2) goes
   * on to a byte that is put behind it. Undefined where it does not, or where
   * there is no room for that byte.
   */
  takePlain(
    from: bigint,
    size: number,
    length: number,
  ): Uint8Array<ArrayBuffer> | undefined {
    const [reading, writing] = this.#open();
    if (this.#size <= size) {
      const larger = trySyscall(
        "fcntl",
        writing,
        F_SETPIPE_SZ,
        BigInt(2 * size),
      );
      if (larger > 0) this.#size = larger;
    }
    this.fill(from, size, length);
    const bytes = new Uint8Array(length + 1);
    if (trySyscall("write", writing, addressOf(bytes), 1n) !== 1) {
      return undefined;
    }
    const count = syscallBuffer1("read", reading, bytes, BigInt(length + 1));
    return count === BigInt(length + 1) ? bytes.subarray(0, length) : undefined;
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
