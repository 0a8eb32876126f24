/**
 * POSIX message queues (mq_overview(7)). A queue with a name belongs to the
 * host: while the one of the dump is there, the program gets it as it is. What
 * is gone is made again with its messages, and what had no name any more gets
 * none.
 */
import {
  addressOf,
  close,
  O,
  open,
  pread,
  stat,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import { ENOENT } from "../ffi/errno.ts";
import { library } from "../ffi/library.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import type {
  ckpt_message_entry,
  ckpt_queue_entry,
} from "../image/schema.gen.ts";
import { DELETED_MARK } from "../proc/maps.ts";

export interface Queue {
  /** Without the slash before it. */
  readonly name: string;
  readonly deleted: boolean;
  readonly maxMessages: number;
  /** Bytes of one at most. */
  readonly messageSize: number;
  /** How many wait. */
  readonly waiting: number;
  /** Who is to be told of the next message (mq_notify(3)); 0: nobody. */
  readonly notified: number;
}

/** MQUEUE_MAGIC of linux/magic.h */
const FILE_SYSTEM = 0x19800202n;
const STATFS_BYTES = 120;
const ATTRIBUTES_BYTES = 64;
const PERMISSIONS = 0o7777;
/** Limits of ipc/mqueue.c. */
const MOST_MESSAGES = 65536;
const LARGEST_MESSAGE = 16 * 2 ** 20;
const HIGHEST_PRIORITY = 32767;

/** Whether a file with such a link in /proc may be one. */
export function mayBeQueue(link: string): boolean {
  return /^\/[^/]+$/s.test(link);
}

/**
 * @param fd a descriptor of ckpt's own for it
 * @returns undefined: it is none
 */
export function lookAtQueue(fd: number, link: string): Queue | undefined {
  const statfs = new Uint8Array(STATFS_BYTES);
  syscall("fstatfs", BigInt(fd), addressOf(statfs));
  if (new DataView(statfs.buffer).getBigInt64(0, true) !== FILE_SYSTEM) {
    return undefined;
  }
  const { nlink } = stat(fd);
  const words = attributesOf(fd);
  const reading = open(`/proc/self/fd/${fd}`, O.RDONLY);
  try {
    const text = new Uint8Array(128);
    const length = pread(reading, text, 0n);
    const told = /NOTIFY_PID:(\d+)/.exec(decodeText(text.subarray(0, length)));
    return {
      name: nlink === 0n && link.endsWith(DELETED_MARK)
        ? link.slice(1, -DELETED_MARK.length)
        : link.slice(1),
      deleted: nlink === 0n,
      maxMessages: Number(words[1]),
      messageSize: Number(words[2]),
      waiting: Number(words[3]),
      notified: Number(told?.[1] ?? 0),
    };
  } finally {
    close(reading);
  }
}

/** struct mq_attr */
function attributesOf(fd: number): BigInt64Array {
  const attributes = new Uint8Array(ATTRIBUTES_BYTES);
  syscall("mq_getsetattr", BigInt(fd), 0n, addressOf(attributes));
  return new BigInt64Array(attributes.buffer);
}

/**
 * Why it cannot be saved; undefined: it can.
 *
 * @param outside whether a process outside the tree has it open, too
 */
export function queueProblem(
  { deleted, notified }: Queue,
  outside: boolean,
): { why: string; remedy?: string } | undefined {
  if (notified !== 0) {
    return {
      why: `task ${notified} is to be told of the next message ` +
        "(mq_notify), and the kernel does not tell how",
    };
  }
  return deleted && outside
    ? {
      why: "it is a message queue without a name that a process outside of " +
        "the program has, too",
    }
    : undefined;
}

/** What precedes each message in the answer of ckpt_read_queue. */
const HEAD_BYTES = 8;

/**
 * Reads the messages that wait, the highest priority first. They are taken out
 * and put back by a process that a kill of ckpt does not end (c/lib/queue.c);
 * whoever has the queue open stands still.
 *
 * @param path that leads to it
 * @throws SyscallError
 */
export function readMessages(
  path: string,
  { waiting, messageSize }: Queue,
): ckpt_message_entry[] {
  if (waiting === 0) return [];
  const fd = open(path, O.RDWR | O.NONBLOCK);
  try {
    const room = new Uint8Array(waiting * (messageSize + HEAD_BYTES));
    const count = library("queues").ckpt_read_queue(
      fd,
      room,
      BigInt(waiting),
      BigInt(messageSize),
    );
    if (count < 0n) throw new SyscallError("mq_timedreceive", -Number(count));
    const view = new DataView(room.buffer);
    return Array.from({ length: Number(count) }, (_, i) => {
      const at = i * (messageSize + HEAD_BYTES);
      const length = view.getUint32(at + 4, true);
      const data = room.slice(at + HEAD_BYTES, at + HEAD_BYTES + length);
      return { priority: view.getUint32(at, true), data };
    });
  } finally {
    close(fd);
  }
}

/** What the kernel would not take of an entry; undefined: it takes it. */
export function queueImageProblem(
  { name, mode, max_messages, message_size, messages }: ckpt_queue_entry,
): string | undefined {
  if (name === "" || name.includes("/") || encodeText(name).length > 255) {
    return `"${name}" is no name of a message queue`;
  }
  if (mode > PERMISSIONS) {
    return `0${mode.toString(8)} is more than permissions`;
  }
  if (max_messages > MOST_MESSAGES || messages.length > max_messages) {
    return `${messages.length} messages of ${max_messages} are too many`;
  }
  if (message_size > LARGEST_MESSAGE) {
    return `messages cannot have ${message_size} bytes`;
  }
  return messages.some(({ priority, data }) =>
      priority > HIGHEST_PRIORITY || data.length > message_size
    )
    ? "a message has more bytes, or a higher priority, than it can"
    : undefined;
}

/** mq_open(3) of a queue that is there; undefined: there is none. */
export function openQueue(name: string, flags: number): number | undefined {
  try {
    const bytes = terminatedName(name);
    return Number(
      syscallBuffer0("mq_open", bytes, BigInt(flags | O.CLOEXEC)),
    );
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ENOENT) {
      return undefined;
    }
    throw error;
  }
}

/**
 * Makes a queue with its messages.
 *
 * @returns a descriptor of ckpt's
 * @throws SyscallError, when there is one of that name, too
 */
export function makeQueue(entry: ckpt_queue_entry, name: string): number {
  const attributes = new BigInt64Array(ATTRIBUTES_BYTES / 8);
  attributes[1] = BigInt(entry.max_messages);
  attributes[2] = BigInt(entry.message_size);
  const fd = Number(
    syscallBuffer0(
      "mq_open",
      terminatedName(name),
      BigInt(O.RDWR | O.CREAT | O.EXCL | O.NONBLOCK | O.CLOEXEC),
      0o600n,
      addressOf(new Uint8Array(attributes.buffer)),
    ),
  );
  try {
    for (const { priority, data } of entry.messages) {
      syscallBuffer1(
        "mq_timedsend",
        BigInt(fd),
        Uint8Array.from(data),
        BigInt(data.length),
        BigInt(priority),
      );
    }
    const { uid, gid, mode } = entry;
    syscall("fchown", BigInt(fd), BigInt(uid), BigInt(gid));
    syscall("fchmod", BigInt(fd), BigInt(mode));
    return fd;
  } catch (error) {
    close(fd);
    unlinkQueue(name);
    throw error;
  }
}

export function unlinkQueue(name: string): void {
  syscallBuffer0("mq_unlink", terminatedName(name));
}

function terminatedName(name: string): Uint8Array<ArrayBuffer> {
  return encodeText(`${name}\0`);
}
