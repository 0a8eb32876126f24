/**
 * What the kernel tells of the descriptors of a process, asked for many at once
 * (ffi/calls.ts): the process may stand still for it.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import {
  close,
  decodeStatus,
  type FileStatus,
  O,
  open,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { type FdInfo, parseFdInfo } from "../proc/fdinfo.ts";

export interface DescriptorFacts {
  readonly fd: number;
  /** What /proc/PID/fd/N shows. */
  readonly link: string;
  readonly status: FileStatus;
  readonly info: FdInfo;
  /** Whether somebody gets signals about the file; undefined: not told. */
  readonly hasOwner: boolean | undefined;
}

/** Asked for at once; their answers take a MiB. */
const AT_ONCE = 1024;
/** Longer answers are asked for one by one. */
const LINK_BYTES = 256;
const INFO_BYTES = 512;
const STATUS_BYTES = 144;
/** A number as text, and as a word. */
const NAME_BYTES = 24;
const NUMBER_AT = 16;
const F_GETSIG = 11;
const F_GETOWN_EX = 16;

/**
 * @param pid of a process, or of a thread of it; @param pidfd of it
 * @param ask gives what was not told of a descriptor, or throws
 */
export function* askDescriptors(
  pid: number,
  pidfd: number,
  fds: readonly number[],
  ask: (fd: number) => DescriptorFacts,
): Generator<DescriptorFacts> {
  const directories: number[] = [];
  try {
    for (const name of ["fd", "fdinfo"]) {
      directories.push(open(`/proc/${pid}/${name}`, O.PATH | O.DIRECTORY));
    }
  } catch (error) {
    for (const directory of directories) close(directory);
    if (!(error instanceof SyscallError)) throw error;
    // It is gone: whoever asks again is told in words.
    for (const fd of fds) yield ask(fd);
    return;
  }
  try {
    const asked = new Questions(
      Math.min(fds.length, AT_ONCE),
      pidfd,
      directories,
    );
    for (let first = 0; first < fds.length; first += AT_ONCE) {
      const some = fds.slice(first, first + AT_ONCE);
      asked.ask(some);
      // Taken out before the room is used for the next ones.
      yield* some.map((fd, i) => asked.answer(fd, i) ?? ask(fd));
    }
  } finally {
    for (const directory of directories) close(directory);
  }
}

class Questions {
  readonly #calls = new Calls();
  readonly #names: Slots;
  readonly #links: Slots;
  readonly #statuses: Slots;
  readonly #infos: Slots;
  readonly #owners: Slots;
  readonly #readlink: number;
  readonly #stat: number;
  readonly #read: number;
  readonly #getOwner: number;
  readonly #getSignal: number;

  constructor(count: number, pidfd: number, [links, infos]: readonly number[]) {
    this.#names = new Slots(NAME_BYTES, count);
    this.#links = new Slots(LINK_BYTES, count);
    this.#statuses = new Slots(STATUS_BYTES, count);
    this.#infos = new Slots(INFO_BYTES, count);
    this.#owners = new Slots(8, count);
    const calls = this.#calls;
    const name = { slots: this.#names };
    this.#readlink = calls.add("readlinkat", [
      links,
      name,
      { slots: this.#links },
      LINK_BYTES,
    ]);
    this.#stat = calls.add("newfstatat", [
      links,
      name,
      { slots: this.#statuses },
      0,
    ]);
    const info = calls.add("openat", [infos, name, O.RDONLY | O.CLOEXEC, 0]);
    this.#read = calls.add("read", [
      { result: info },
      { slots: this.#infos },
      INFO_BYTES,
    ]);
    calls.add("close", [{ result: info }]);
    const number = { loaded: this.#names, offset: NUMBER_AT };
    const own = calls.add("pidfd_getfd", [pidfd, number, 0]);
    const result = { result: own };
    this.#getOwner = calls.add("fcntl", [
      result,
      F_GETOWN_EX,
      { slots: this.#owners },
    ]);
    this.#getSignal = calls.add("fcntl", [result, F_GETSIG]);
    calls.add("close", [result]);
  }

  ask(fds: readonly number[]): void {
    for (const [i, fd] of fds.entries()) {
      this.#names.setText(i, `${fd}`);
      this.#names.view.setUint32(i * NAME_BYTES + NUMBER_AT, fd, true);
    }
    this.#calls.run(fds.length);
  }

  /** Undefined when a question has no answer, or a long one. */
  answer(fd: number, i: number): DescriptorFacts | undefined {
    const length = this.#calls.result(i, this.#readlink);
    const bytes = this.#calls.result(i, this.#read);
    if (
      length < 0 || length === LINK_BYTES || bytes < 0 ||
      bytes === INFO_BYTES || this.#calls.result(i, this.#stat) < 0
    ) return undefined;
    return {
      fd,
      link: decodeText(this.#links.slot(i, length)),
      status: decodeStatus(this.#statuses.view, i * STATUS_BYTES),
      info: parseFdInfo(decodeText(this.#infos.slot(i, bytes))),
      hasOwner: this.#hasOwner(i),
    };
  }

  #hasOwner(i: number): boolean | undefined {
    const signal = this.#calls.result(i, this.#getSignal);
    if (this.#calls.result(i, this.#getOwner) < 0 || signal < 0) {
      return undefined;
    }
    return signal !== 0 || this.#owners.view.getInt32(i * 8 + 4, true) !== 0;
  }
}
