/**
 * The limits of an ipc namespace (proc_sys_kernel(5), mq_overview(7)), and
 * which POSIX message queues are in it.
 */
import { ENODEV, ENOENT } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  syscall,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import type { ipc_var_entry } from "../image/schema.gen.ts";
import { writeSysctls } from "./sysctl.ts";

const KERNEL = "/proc/sys/kernel";
const MQUEUE = "/proc/sys/fs/mqueue";

/** Values of one number: the field of the image, and where it is. */
const NUMBERS = {
  msg_ctlmax: `${KERNEL}/msgmax`,
  msg_ctlmnb: `${KERNEL}/msgmnb`,
  msg_ctlmni: `${KERNEL}/msgmni`,
  auto_msgmni: `${KERNEL}/auto_msgmni`,
  shm_ctlmni: `${KERNEL}/shmmni`,
  shm_rmid_forced: `${KERNEL}/shm_rmid_forced`,
  mq_queues_max: `${MQUEUE}/queues_max`,
  mq_msg_max: `${MQUEUE}/msg_max`,
  mq_msgsize_max: `${MQUEUE}/msgsize_max`,
  mq_msg_default: `${MQUEUE}/msg_default`,
  mq_msgsize_default: `${MQUEUE}/msgsize_default`,
} as const;

/** ... of 64 bits. */
const LARGE_NUMBERS = {
  shm_ctlmax: `${KERNEL}/shmmax`,
  shm_ctlall: `${KERNEL}/shmall`,
} as const;

/** The id that the next object gets, where one was wished for. */
const NEXT_IDS = {
  msg_next_id: `${KERNEL}/msg_next_id`,
  sem_next_id: `${KERNEL}/sem_next_id`,
  shm_next_id: `${KERNEL}/shm_next_id`,
} as const;

const SEMAPHORES = `${KERNEL}/sem`;

/** A kernel without POSIX message queues has none of their values. */
function read(path: string): string {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "0";
    throw error;
  }
}

/** Of the namespace that ckpt is in. */
export function dumpIpcLimits(): ipc_var_entry {
  const numbers = (names: Readonly<Record<string, string>>) =>
    Object.fromEntries(
      Object.entries(names).map(([field, path]) => [field, Number(read(path))]),
    );
  const large = Object.fromEntries(
    Object.entries(LARGE_NUMBERS).map(([field, path]) =>
      [field, BigInt(read(path))] as const
    ),
  );
  const next = Object.entries(numbers(NEXT_IDS)).filter(([, id]) => id >= 0);
  return {
    ...numbers(NUMBERS),
    ...large,
    ...Object.fromEntries(next),
    sem_ctls: read(SEMAPHORES).split(/\s+/).map(Number),
  } as ipc_var_entry;
}

/**
 * Sets the limits in the namespace that ckpt is in, as far as they differ.
 *
 * @throws CkptError naming the one that the kernel did not take
 */
export function restoreIpcLimits(entry: ipc_var_entry): void {
  const values: [string, string][] = [];
  for (const [field, path] of Object.entries({ ...NUMBERS, ...NEXT_IDS })) {
    const value = entry[field as keyof typeof NUMBERS];
    if (value !== undefined) values.push([path, `${value}`]);
  }
  for (const [field, path] of Object.entries(LARGE_NUMBERS)) {
    values.push([path, `${entry[field as keyof typeof LARGE_NUMBERS]}`]);
  }
  values.push([SEMAPHORES, entry.sem_ctls.join("\t")]);
  // Limits come before what has to be below them.
  writeSysctls(values);
}

const FSOPEN_CLOEXEC = 1n;
const FSCONFIG_CMD_CREATE = 6n;
const FSMOUNT_CLOEXEC = 1n;

/** Names of those of ckpt's ipc namespace, by a mount that nobody sees. */
export function messageQueues(): string[] {
  const context = openContext("mqueue");
  if (context === undefined) return [];
  try {
    syscall("fsconfig", BigInt(context), FSCONFIG_CMD_CREATE, 0n, 0n, 0n);
    const mount = syscall("fsmount", BigInt(context), FSMOUNT_CLOEXEC);
    try {
      return [...Deno.readDirSync(`/proc/self/fd/${mount}`)]
        .map(({ name }) => name);
    } finally {
      close(Number(mount));
    }
  } finally {
    close(context);
  }
}

/** fsopen(2); undefined where the kernel has no such file system. */
function openContext(type: string): number | undefined {
  const name = terminated(type);
  try {
    return Number(syscall("fsopen", addressOf(name), FSOPEN_CLOEXEC));
  } catch (error) {
    const none = error instanceof SyscallError &&
      (error.errno === ENODEV || error.errno === ENOENT);
    if (none) return undefined;
    throw error;
  }
}
