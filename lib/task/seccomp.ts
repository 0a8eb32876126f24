/**
 * Seccomp: strict mode and chains of filters (seccomp(2)). Filters can be read
 * back only from a traced thread, in the order they were installed.
 *
 * In the image (seccomp.img) a chain is stored newest first, and a thread
 * names its oldest filter; `prev` leads from each to the next newer one.
 */
import { CkptError, EXIT } from "../error.ts";
import type { Program } from "../ffi/program.ts";
import { addressOf, syscallByTracer, SyscallError } from "../ffi/syscall.ts";
import { describeErrno, ENOENT } from "../ffi/errno.ts";
import {
  type seccomp_entry,
  type seccomp_filter,
  seccomp_mode,
} from "../image/schema.gen.ts";

/** SECCOMP_FILTER_FLAG_* */
const FLAG_TSYNC = 1;
const FLAG_LOG = 2;
const FLAG_SPEC_ALLOW = 4;
const FLAG_TSYNC_ESRCH = 16;
const KEPT_FLAGS = FLAG_LOG | FLAG_SPEC_ALLOW;

/** struct sock_filter */
const INSTRUCTION_LENGTH = 8;
/** BPF_MAXINSNS (linux/bpf_common.h). */
const MOST_INSTRUCTIONS = 4096;
/** MAX_INSNS_PER_PATH in kernel/seccomp.c; each filter costs 4 more. */
const MOST_INSTRUCTIONS_OF_CHAIN = 32768;
const COST_OF_FILTER = 4;

/** One filter as it was installed. */
export interface Filter {
  /** struct sock_filter[] */
  readonly code: Uint8Array<ArrayBuffer>;
  /** LOG and SPEC_ALLOW of SECCOMP_FILTER_FLAG_*. */
  readonly flags: number;
}

/** One thread to save. */
export interface SeccompThread {
  readonly tid: number;
  /** As in its status: 0 disabled, 1 strict, 2 filter. */
  readonly mode: number;
  /** {@link readFilters} for mode 2, else none. */
  readonly filters: readonly Filter[];
}

/** The fields of a thread_core_entry; none when seccomp is off. */
export interface SeccompFields {
  seccomp_mode?: number;
  seccomp_filter?: number;
}

/**
 * Reads the filters of a stopped, traced thread, oldest first. Needs
 * CAP_SYS_ADMIN in the first user namespace.
 *
 * @param speculation Speculation_Store_Bypass of the thread's status. Where
 *   it says "thread vulnerable", no filter has brought the mitigation, so all
 *   were installed with SPEC_ALLOW; the kernel does not tell more.
 * @throws CkptError refused, for filters that a notification listener serves
 *   or that are no classic BPF; permission
 */
export function readFilters(
  tid: number,
  speculation: string | undefined,
): Filter[] {
  const flags = speculation === "thread vulnerable" ? FLAG_SPEC_ALLOW : 0;
  const filters: Filter[] = [];
  const metadata = new BigUint64Array(2);
  const metadataBytes = new Uint8Array(metadata.buffer);
  for (;;) {
    const count = getFilter(tid, filters.length);
    if (count === undefined) return filters;
    const code = new Uint8Array(count * INSTRUCTION_LENGTH);
    getFilter(tid, filters.length, code);
    if (notifies(code)) {
      throw new CkptError(EXIT.refused, "saving seccomp filters", [{
        object: `filter ${filters.length} of thread ${tid}`,
        why: "it hands system calls to a listener (SECCOMP_RET_USER_NOTIF), " +
          "and the listener cannot be saved",
      }]);
    }
    metadata[0] = BigInt(filters.length);
    request(
      PTRACE_SECCOMP_GET_METADATA,
      tid,
      filters.length,
      BigInt(metadataBytes.length),
      metadataBytes,
    );
    filters.push({ code, flags: flags | Number(metadata[1]) & KEPT_FLAGS });
  }
}

const PTRACE_SECCOMP_GET_FILTER = 0x420cn;
const PTRACE_SECCOMP_GET_METADATA = 0x420dn;

/**
 * Filter `index`; 0 is the oldest (get_nth_filter in kernel/seccomp.c).
 *
 * @returns its number of instructions; undefined: there is none
 */
function getFilter(
  tid: number,
  index: number,
  code?: Uint8Array<ArrayBuffer>,
): number | undefined {
  return request(PTRACE_SECCOMP_GET_FILTER, tid, index, BigInt(index), code);
}

function request(
  call: bigint,
  tid: number,
  index: number,
  address: bigint,
  buffer?: Uint8Array<ArrayBuffer>,
): number | undefined {
  try {
    const data = buffer === undefined ? 0n : addressOf(buffer);
    return Number(syscallByTracer("ptrace", call, BigInt(tid), address, data));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    const EMEDIUMTYPE = 124;
    const EPERM = 1;
    const EACCES = 13;
    if (error.errno === ENOENT) return undefined;
    const object = `filter ${index} of thread ${tid}`;
    if (error.errno === EMEDIUMTYPE) {
      throw new CkptError(EXIT.refused, "saving seccomp filters", [{
        object,
        why: "the kernel does not keep it in the form it was installed in",
      }]);
    }
    const denied = error.errno === EACCES || error.errno === EPERM;
    throw new CkptError(
      denied ? EXIT.permission : EXIT.failed,
      "saving seccomp filters",
      [{
        object,
        why: describeErrno(error.errno),
        remedy: denied
          ? "run ckpt with CAP_SYS_ADMIN and without a seccomp filter of its own"
          : undefined,
      }],
    );
  }
}

/** Whether a filter can return SECCOMP_RET_USER_NOTIF. */
function notifies(code: Uint8Array): boolean {
  const RETURN_CONSTANT = 0x06; // BPF_RET | BPF_K
  const ACTION = 0xffff_0000;
  const USER_NOTIF = 0x7fc0_0000;
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength);
  for (let at = 0; at < code.length; at += INSTRUCTION_LENGTH) {
    if (
      view.getUint16(at, true) === RETURN_CONSTANT &&
      (view.getUint32(at + 4, true) & ACTION) === USER_NOTIF
    ) return true;
  }
  return false;
}

/** Builds seccomp.img: chains that are alike are stored once. */
export class SeccompTable {
  readonly entry: seccomp_entry = { seccomp_filters: [] };
  /** What a chain consists of, to the index of its oldest filter. */
  readonly #chains = new Map<string, number>();

  /**
   * Adds the threads of one process, the leader first. When all chains are
   * alike only the leader gets fields, and the filters are marked to hold for
   * all threads (TSYNC), as CRIU writes and expects them.
   *
   * @returns the fields of each thread, in the same order
   */
  addProcess(threads: readonly SeccompThread[]): SeccompFields[] {
    const keys = threads.map(({ filters }) => filters.map(keyOf).join("/"));
    const filter = seccomp_mode.filter;
    const alike = threads.every(({ mode }, i) =>
      mode === filter && keys[i] === keys[0]
    );
    return threads.map(({ mode, filters }, i) => {
      if (mode === seccomp_mode.disabled || alike && i > 0) return {};
      if (mode !== filter) return { seccomp_mode: mode };
      return {
        seccomp_mode: filter,
        seccomp_filter: this.#add(keys[i], filters, alike ? FLAG_TSYNC : 0),
      };
    });
  }

  #add(key: string, filters: readonly Filter[], marker: number): number {
    const chain = `${marker}:${key}`;
    const known = this.#chains.get(chain);
    if (known !== undefined) return known;
    const list = this.entry.seccomp_filters;
    const newest = list.length;
    for (let i = filters.length - 1; i >= 0; i--) {
      list.push({
        filter: filters[i].code,
        flags: filters[i].flags | marker,
        ...(list.length > newest ? { prev: list.length - 1 } : {}),
      });
    }
    this.#chains.set(chain, list.length - 1);
    return list.length - 1;
  }
}

function keyOf({ code, flags }: Filter): string {
  return `${flags},${code.join()}`;
}

/**
 * The filters of a thread in the order to install them.
 *
 * @param index seccomp_filter of the thread
 * @throws CkptError image, for what the kernel would not take, or a circle
 */
export function chainOf(
  table: seccomp_entry,
  index: number,
): seccomp_filter[] {
  const chain: seccomp_filter[] = [];
  const seen = new Set<number>();
  let cost = 0;
  for (let at: number | undefined = index; at !== undefined;) {
    const filter: seccomp_filter | undefined = table.seccomp_filters[at];
    if (filter === undefined) {
      throw damaged(
        at,
        `there are only ${table.seccomp_filters.length} filters`,
      );
    }
    if (seen.has(at)) throw damaged(at, "its chain leads back to it");
    seen.add(at);
    const count = filter.filter.length / INSTRUCTION_LENGTH;
    if (!Number.isInteger(count) || count < 1 || count > MOST_INSTRUCTIONS) {
      throw damaged(
        at,
        `it has ${filter.filter.length} bytes, and must have 1 to ` +
          `${MOST_INSTRUCTIONS} instructions of ${INSTRUCTION_LENGTH} bytes`,
      );
    }
    cost += count + COST_OF_FILTER;
    if (cost > MOST_INSTRUCTIONS_OF_CHAIN) {
      throw damaged(
        at,
        `its chain has more than ${MOST_INSTRUCTIONS_OF_CHAIN} instructions`,
      );
    }
    const other = (filter.flags ?? 0) & ~(KEPT_FLAGS | FLAG_TSYNC);
    if (other !== 0) {
      throw damaged(at, `its flags hold 0x${other.toString(16)}`);
    }
    chain.push(filter);
    at = filter.prev;
  }
  return chain;
}

/** Whether the leader's filters hold for all threads of its process. */
export function isForAllThreads(
  table: seccomp_entry,
  leader: SeccompFields,
): boolean {
  return leader.seccomp_filter !== undefined &&
    chainOf(table, leader.seccomp_filter).every((filter) =>
      ((filter.flags ?? 0) & FLAG_TSYNC) !== 0
    );
}

/**
 * Installs the filters of a thread. Needs CAP_SYS_ADMIN, so it comes before
 * the credentials.
 *
 * @param forAllThreads install them in all threads of the process at once, so
 *   that the threads share them, which a later TSYNC by the program needs. Run
 *   this in the leader only, when the other threads exist.
 * @throws CkptError image
 */
export function restoreSeccomp(
  program: Program,
  table: seccomp_entry,
  fields: SeccompFields,
  forAllThreads = false,
): void {
  const PR_SET_SECCOMP = 22;
  const SECCOMP_SET_MODE_FILTER = 1;
  switch (fields.seccomp_mode ?? seccomp_mode.disabled) {
    case seccomp_mode.disabled:
      return;
    case seccomp_mode.strict:
      program.call(
        "prctl",
        [PR_SET_SECCOMP, seccomp_mode.strict],
        "entering strict seccomp",
      );
      return;
    case seccomp_mode.filter:
      break;
    default:
      throw new CkptError(EXIT.image, "restoring seccomp", [{
        object: "field seccomp_mode",
        why: `there is no mode ${fields.seccomp_mode}`,
      }]);
  }
  if (fields.seccomp_filter === undefined) {
    throw new CkptError(EXIT.image, "restoring seccomp", [{
      object: "field seccomp_filter",
      why: "it is missing, and the mode is filter",
    }]);
  }
  // ESRCH: a thread that cannot follow is an error, not a positive result.
  const all = forAllThreads ? FLAG_TSYNC | FLAG_TSYNC_ESRCH : 0;
  chainOf(table, fields.seccomp_filter).forEach((filter, i) => {
    const code = program.bytes(filter.filter);
    // struct sock_fprog: 16 bits and padding, then a pointer.
    const fprog = program.words([
      filter.filter.length / INSTRUCTION_LENGTH,
      code,
    ]);
    program.call(
      "seccomp",
      [
        SECCOMP_SET_MODE_FILTER,
        (filter.flags ?? 0) & KEPT_FLAGS | all,
        fprog,
      ],
      `installing seccomp filter ${i}`,
    );
  });
}

function damaged(index: number, why: string): CkptError {
  return new CkptError(EXIT.image, "reading seccomp filters", [{
    object: `seccomp.img, filter ${index}`,
    why,
  }]);
}
