/**
 * Events of inotify(7) and fanotify(7) that a program has not read yet. Nobody
 * can read them and put them back: they stay with the program that is dumped,
 * and are not part of the image. That is told to whoever dumps and restores,
 * and the restored program by inotify's own word for it.
 */
import { CkptError, EXIT } from "../error.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  syscallBuffer1,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";

const FIONREAD = 0x541bn;

/** Bytes of events that nobody has read yet; also of fanotify groups. */
export function pendingBytes(fd: number): number {
  const count = new Int32Array(1);
  const bytes = new Uint8Array(count.buffer);
  syscall("ioctl", BigInt(fd), FIONREAD, addressOf(bytes));
  return count[0];
}

const IN_ACCESS = 1;
/** struct inotify_event without a name. */
const EVENT_BYTES = 16;
const EVENTS_AT_ONCE = 1024;

/**
 * Lets the next read tell that events were lost (IN_Q_OVERFLOW), as the kernel
 * does: the queue is filled by reads of two files until it is full, and emptied
 * but for the last event. That the two are watched no more finds no room in it.
 *
 * @param fd a descriptor of ckpt's own for an instance without watches
 * @param files two that can be read
 */
export function tellOfLostEvents(
  fd: number,
  files: readonly [string, string],
): void {
  const sources = files.map((file) => open(encodeText(file), O.RDONLY));
  try {
    const watches = files.map((file) =>
      syscallBuffer1(
        "inotify_add_watch",
        BigInt(fd),
        terminated(encodeText(file)),
        BigInt(IN_ACCESS),
      )
    );
    const byte = new Uint8Array(1);
    let filled = 0;
    for (let before = -1; filled !== before;) {
      before = filled;
      for (let i = 0; i < EVENTS_AT_ONCE; i++) {
        for (const source of sources) {
          syscallBuffer1("pread64", BigInt(source), byte, 1n, 0n);
        }
      }
      filled = pendingBytes(fd);
    }
    if (filled === 0) {
      throw new CkptError(EXIT.failed, "telling of lost events", [{
        object: files[0],
        why: "reading it causes no events",
        remedy: "copy the images to another file system",
      }]);
    }
    for (const watch of watches) {
      syscall("inotify_rm_watch", BigInt(fd), watch);
    }
    let rest = filled - EVENT_BYTES;
    const events = new Uint8Array(EVENT_BYTES * EVENTS_AT_ONCE);
    while (rest > 0) {
      const most = BigInt(Math.min(rest, events.length));
      rest -= Number(syscallBuffer1("read", BigInt(fd), events, most));
    }
  } finally {
    for (const source of sources) close(source);
  }
}
