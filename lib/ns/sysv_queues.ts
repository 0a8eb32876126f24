/**
 * System V message queues of an ipc namespace that goes with the tree, with all
 * messages in them (sysvipc(7)). To read them takes none out (MSG_COPY).
 */
import { addressOf, syscall } from "../ffi/syscall.ts";
import type { Entry, SysvMessage } from "../image/kinds.ts";
import { readSysvQueues } from "../proc/read.ts";
import type { SysvQueue } from "../proc/sysvipc.ts";
import {
  attemptSysv,
  IPC,
  makeSysvObject,
  nameOf,
  setSysvOwner,
  STATUS_BYTES,
} from "./sysv_ids.ts";
import { writeSysctls } from "./sysctl.ts";

/** msgrcv(2): of the message with this number, not the next one; a copy. */
const MSG_COPY = 0o40000n;
const MSG_NOERROR = 0o10000n;
/** Of struct msqid64_ds (asm-generic/msgbuf.h). */
const QBYTES_AT = 88;
/** Of struct msgbuf: the type, before the text. */
const TYPE_BYTES = 8;

const LIMITS = {
  /** Bytes of a message. */
  message: "/proc/sys/kernel/msgmax",
  /** Bytes in a queue. */
  queue: "/proc/sys/kernel/msgmnb",
  queues: "/proc/sys/kernel/msgmni",
} as const;

const REMEDY = `${LIMITS.message} must not be below the size of a message, ` +
  "and the kernel needs CONFIG_CHECKPOINT_RESTORE";

/**
 * Of the namespace that ckpt is in, while nobody uses them.
 *
 * @throws CkptError naming the queue that cannot be read
 */
export function dumpQueues(): Entry<"ipcns-msg">[] {
  const queues = readSysvQueues();
  if (queues.length === 0) return [];
  const room = new Uint8Array(TYPE_BYTES + Number(read(LIMITS.message)));
  return queues.map((queue) => dumpQueue(queue, room));
}

function dumpQueue(
  { messages, ...desc }: SysvQueue,
  room: Uint8Array<ArrayBuffer>,
): Entry<"ipcns-msg"> {
  const id = BigInt(desc.id);
  return attemptSysv(`reading ${nameOf("queue", desc.id)}`, () => {
    const status = new Uint8Array(STATUS_BYTES);
    syscall("msgctl", id, IPC.stat, addressOf(status));
    const qbytes = new DataView(status.buffer).getBigUint64(QBYTES_AT, true);
    const extra = Array.from({ length: messages }, (_, i): SysvMessage => {
      const size = syscall(
        "msgrcv",
        id,
        addressOf(room),
        BigInt(room.length - TYPE_BYTES),
        BigInt(i),
        MSG_COPY | MSG_NOERROR | IPC.noWait,
      );
      const mtype = new DataView(room.buffer).getBigUint64(0, true);
      return { mtype, data: room.slice(TYPE_BYTES, TYPE_BYTES + Number(size)) };
    });
    return { desc, qbytes: Number(qbytes), qnum: messages, extra };
  }, REMEDY);
}

/**
 * Makes them in the namespace that ckpt is in, which is new. Its limits are
 * what they need afterwards, at least.
 *
 * @throws CkptError naming the queue
 */
export function restoreQueues(queues: readonly Entry<"ipcns-msg">[]): void {
  if (queues.length === 0) return;
  const sizes = queues.flatMap(({ extra }) =>
    extra.map(({ data }) => data.length)
  );
  const bytes = queues.map(({ qbytes, qnum, extra }) =>
    Math.max(
      qbytes,
      qnum,
      extra.reduce((sum, { data }) => sum + data.length, 0),
    )
  );
  writeSysctls([
    atLeast(LIMITS.message, sizes),
    atLeast(LIMITS.queue, bytes),
    atLeast(LIMITS.queues, [queues.length]),
  ]);
  for (const { desc, qbytes, extra } of queues) {
    attemptSysv(`making ${nameOf("queue", desc.id)}`, () => {
      makeSysvObject(
        "queue",
        desc,
        (key, flags) => syscall("msgget", key, flags),
      );
      for (const message of extra) send(desc.id, message);
      const status = new Uint8Array(STATUS_BYTES);
      new DataView(status.buffer)
        .setBigUint64(QBYTES_AT, BigInt(qbytes), true);
      setSysvOwner("queue", desc, status);
    });
  }
}

function send(id: number, { mtype, data }: SysvMessage): void {
  const message = new Uint8Array(TYPE_BYTES + data.length);
  new DataView(message.buffer).setBigUint64(0, mtype, true);
  message.set(data, TYPE_BYTES);
  const size = BigInt(data.length);
  syscall("msgsnd", BigInt(id), addressOf(message), size, IPC.noWait);
}

function read(path: string): string {
  return Deno.readTextFileSync(path).trim();
}

/** A limit that allows for all of `values`, and for what it does by now. */
function atLeast(path: string, values: readonly number[]): [string, string] {
  const most = values.reduce((a, b) => Math.max(a, b), Number(read(path)));
  return [path, `${most}`];
}
