/**
 * Loads libckpt.so. Each symbol costs 0.05 ms, so they come in groups, loaded
 * when first used.
 */
import { libraryPath } from "./library_path.ts";

const base = {
  ckpt_syscall: {
    parameters: ["i64", "u64", "u64", "u64", "u64", "u64", "u64"],
    result: "i64",
  },
  /** The same function for a call whose first argument is a buffer. */
  syscall_buffer0: {
    name: "ckpt_syscall",
    parameters: ["i64", "buffer", "u64", "u64", "u64", "u64", "u64"],
    result: "i64",
  },
  /** ... whose second argument is a buffer. */
  syscall_buffer1: {
    name: "ckpt_syscall",
    parameters: ["i64", "u64", "buffer", "u64", "u64", "u64", "u64"],
    result: "i64",
  },
  ckpt_cause: { parameters: ["buffer"], result: "void" },
  ckpt_calls: {
    parameters: ["buffer", "u64", "u64", "buffer"],
    result: "i64",
  },
} as const;

const files = {
  ckpt_read_file: { parameters: ["buffer", "buffer", "u64"], result: "i64" },
  ckpt_read_smaps: { parameters: ["buffer", "buffer", "u64"], result: "i64" },
  ckpt_read_links: {
    parameters: ["buffer", "buffer", "buffer", "u64"],
    result: "i64",
  },
  ckpt_list_numbers: { parameters: ["buffer", "buffer", "u64"], result: "i64" },
} as const;

const descriptors = {
  ckpt_read_open_files: {
    parameters: ["i32", "buffer", "u64", "buffer", "buffer", "u64"],
    result: "i64",
  },
  ckpt_look_at_descriptors: { parameters: ["buffer", "u64"], result: "i64" },
  ckpt_compare_descriptors: {
    parameters: ["buffer", "u64", "buffer"],
    result: "i64",
  },
  ckpt_find_descriptions: {
    parameters: ["buffer", "u64", "i32", "buffer", "u64", "buffer"],
    result: "i64",
  },
} as const;

/** What `base` has, beside JavaScript, which goes on meanwhile. */
const calls = {
  calls_beside: {
    name: "ckpt_calls",
    parameters: ["buffer", "u64", "u64", "buffer"],
    result: "i64",
    nonblocking: true,
  },
  ckpt_calls_in_turn: {
    parameters: ["buffer", "u64", "u64", "buffer"],
    result: "i64",
    nonblocking: true,
  },
} as const;

const answers = {
  ckpt_number_answers: {
    parameters: [
      ...["u32", "buffer", "u64", "buffer", "u64"] as const,
      ...["buffer", "u64", "buffer", "buffer"] as const,
    ],
    result: "i64",
  },
} as const;

const images = {
  ckpt_sha256: {
    parameters: ["buffer", "u64", "buffer", "u32"],
    result: "void",
  },
  ckpt_read_files: {
    parameters: ["buffer", "buffer", "u64", "buffer", "buffer", "buffer"],
    result: "i64",
  },
  ckpt_write_file: { parameters: ["buffer", "buffer", "u64"], result: "i64" },
} as const;

const dump = {
  ckpt_seize: {
    parameters: [
      "i32",
      "u32",
      "buffer",
      "buffer",
      "u64",
      "u64",
      "buffer",
      "buffer",
    ],
    result: "i64",
  },
  ckpt_await_stops: {
    parameters: ["buffer", "buffer", "u64", "i32"],
    result: "i64",
  },
  ckpt_detach: { parameters: ["buffer", "u64"], result: "i64" },
  ckpt_kill: { parameters: ["i32", "buffer", "u64"], result: "i64" },
  ckpt_end_with_tracer: { parameters: ["buffer", "u64"], result: "i64" },
  ckpt_read_threads: {
    parameters: ["buffer", "u64", "buffer", "u64"],
    result: "i64",
  },
  ckpt_peek_siginfo: {
    parameters: ["i32", "i32", "buffer", "u64"],
    result: "i64",
  },
  ckpt_cure_size: { parameters: [], result: "i64" },
  ckpt_agent_enter: { parameters: ["buffer", "u64"], result: "i64" },
  ckpt_agent_run: {
    parameters: ["buffer", "u64", "u64", "u64"],
    result: "i64",
  },
  ckpt_agent_leave: { parameters: ["buffer", "u64"], result: "i64" },
  ckpt_ask_thread: { parameters: ["i32", "u64"], result: "i64" },
  ckpt_await_thread: { parameters: ["i32", "i32"], result: "i64" },
  ckpt_adopt_snapshot: { parameters: ["i32", "u64"], result: "i64" },
  ckpt_ask_threads: {
    parameters: ["buffer", "u64", "u64", "u64", "u64", "buffer"],
    result: "i64",
  },
  ckpt_inject: { parameters: ["buffer", "buffer", "u64"], result: "i64" },
  /** For ptrace(2) and wait4(2), which only the tracer can use. */
  tracer_syscall: {
    name: "ckpt_syscall",
    parameters: ["i64", "u64", "u64", "u64", "u64", "u64", "u64"],
    result: "i64",
  },
} as const;

const pages = {
  ckpt_find_task_pages: {
    parameters: ["i32", "buffer", "u64", "i32", "u64", "buffer", "buffer"],
    result: "i64",
  },
  ckpt_find_inherited: {
    parameters: ["u64", "i32", "i32", "buffer", "u64"],
    result: "i64",
    nonblocking: true,
  },
  ckpt_keep_locks_ready: {
    parameters: ["buffer"],
    result: "i64",
    nonblocking: true,
  },
  ckpt_copy_pieces: { parameters: ["u64"], result: "i64", nonblocking: true },
  ckpt_copy_tasks: {
    parameters: ["buffer", "u64"],
    result: "i64",
    nonblocking: true,
  },
  ckpt_cancel_copy: { parameters: ["u64"], result: "void" },
  ckpt_end_task_copy: { parameters: ["u64", "buffer"], result: "i64" },
  ckpt_copy_object_pages: {
    parameters: ["i32", "u64", "i32", "buffer", "buffer"],
    result: "i64",
    nonblocking: true,
  },
  ckpt_free: { parameters: ["u64"], result: "void" },
} as const;

const objects = {
  /** The same function as of the group `pages`, for what is done at once. */
  copy_small_object: {
    name: "ckpt_copy_object_pages",
    parameters: ["i32", "u64", "i32", "buffer", "buffer"],
    result: "i64",
  },
} as const;

const filling = {
  ckpt_fill_task: {
    parameters: ["i32", "i32", "buffer", "u64", "buffer"],
    result: "i64",
    nonblocking: true,
  },
  ckpt_fill_memory: {
    parameters: ["i32", "u64", "buffer", "u64", "buffer"],
    result: "i64",
    nonblocking: true,
  },
} as const;

const fillingNow = {
  /** The same function as of the group `filling`, for what is done at once. */
  fill_small_memory: {
    name: "ckpt_fill_memory",
    parameters: ["i32", "u64", "buffer", "u64", "buffer"],
    result: "i64",
  },
} as const;

const agent = {
  ckpt_start_agent: {
    parameters: ["i32", "i32", "i32", "buffer", "u64", "u64", "u64", "u64"],
    result: "i64",
  },
  ckpt_trace_agent: { parameters: ["i32", "u64"], result: "i64" },
  ckpt_agent_point: {
    parameters: ["i32", "u64", "u64", "u64"],
    result: "i64",
  },
  ckpt_resume: { parameters: ["i32"], result: "i64" },
  ckpt_agent_wait: {
    parameters: ["i32", "buffer", "u64", "u32"],
    result: "i64",
  },
} as const;

const restore = {
  ckpt_write_agent: { parameters: ["i32", "u64"], result: "i64" },
  ckpt_agent_step: { parameters: ["i32"], result: "i64" },
  ckpt_call_at: {
    parameters: ["buffer", "u64", "i64", "u64", "u64"],
    result: "i64",
  },
  ckpt_agent_end: { parameters: ["i32"], result: "i64" },
  ckpt_exit_at: { parameters: ["i32", "u64"], result: "i64" },
  ckpt_end_leader: { parameters: ["i32"], result: "i64" },
  ckpt_continue_group: { parameters: ["i32", "buffer", "u64"], result: "i64" },
  ckpt_stop_group: { parameters: ["buffer", "u64", "i32"], result: "i64" },
  ckpt_release: { parameters: ["buffer", "u64"], result: "i64" },
  ckpt_set_fpu: { parameters: ["i32", "buffer", "u64"], result: "i64" },
  ckpt_set_registers: { parameters: ["i32", "buffer"], result: "i64" },
  ckpt_set_signal_mask: { parameters: ["i32", "u64"], result: "i64" },
} as const;

const ranges = {
  ckpt_data_ranges: {
    parameters: ["i32", "u64", "buffer", "u64"],
    result: "i64",
  },
  ckpt_copy_ranges: {
    parameters: ["i32", "i32", "buffer", "u64", "buffer"],
    result: "i64",
    nonblocking: true,
  },
  ckpt_save_content: {
    parameters: ["buffer"],
    result: "i64",
    nonblocking: true,
  },
} as const;

const chunks = {
  ckpt_list_chunks: {
    parameters: ["i32", "u64", "u64", "buffer", "u64"],
    result: "i64",
  },
} as const;

const ghosts = {
  ckpt_save_small_ghosts: {
    parameters: ["buffer"],
    result: "i64",
    nonblocking: true,
  },
} as const;

const ghostsNow = {
  /** The same function as of the group `ghosts`, for what is done at once. */
  save_few_ghosts: {
    name: "ckpt_save_small_ghosts",
    parameters: ["buffer"],
    result: "i64",
  },
} as const;

const outliving = {
  ckpt_outliving_calls: {
    parameters: ["buffer", "u64", "u64", "buffer"],
    result: "i64",
  },
} as const;

const bareThread = {
  ckpt_start_bare_thread: { parameters: [], result: "i64" },
} as const;

const guard = {
  ckpt_start_guard: { parameters: ["buffer", "u64", "i64"], result: "i64" },
  ckpt_end_guard: { parameters: ["u64"], result: "i64" },
} as const;

const tracer = {
  ckpt_start_tracer: { parameters: ["buffer"], result: "i64" },
  ckpt_by_tracer: { parameters: ["u64", "u64", "buffer"], result: "i64" },
  ckpt_end_tracer: { parameters: ["u64"], result: "i64" },
} as const;

const enter = {
  ckpt_agent_program: { parameters: [], result: "i64" },
  ckpt_enter: { parameters: ["buffer", "u64", "u64"], result: "i64" },
} as const;

const sockets = {
  ckpt_run_own_program: { parameters: ["buffer"], result: "i64" },
  ckpt_read_connections: { parameters: ["buffer", "u64"], result: "i64" },
} as const;

const queues = {
  ckpt_read_queue: {
    parameters: ["i32", "buffer", "u64", "u64"],
    result: "i64",
  },
} as const;

const ring = {
  ckpt_make_ring: {
    parameters: ["u32", "u32", "u32", "u32", "u32"],
    result: "i64",
  },
} as const;

const archive = {
  ckpt_archive_append: {
    parameters: ["buffer", "buffer", "i32", "u64", "u64"],
    result: "i64",
  },
  ckpt_archive_end: { parameters: ["buffer"], result: "i64" },
  ckpt_archive_take: {
    parameters: ["buffer", "buffer", "i32", "u64", "u64"],
    result: "i64",
  },
  ckpt_archive_finish: { parameters: ["buffer"], result: "i64" },
} as const;

const waiting = {
  /** A system call made beside JavaScript, which goes on meanwhile. */
  syscall_beside: {
    name: "ckpt_syscall",
    parameters: ["i64", "u64", "u64", "u64", "u64", "u64", "u64"],
    result: "i64",
    nonblocking: true,
  },
} as const;

const types = {
  ckpt_find_types: {
    parameters: ["buffer", "buffer", "buffer", "buffer"],
    result: "i64",
  },
} as const;

const cpu = {
  ckpt_xsave_layout: { parameters: ["buffer"], result: "i64" },
  ckpt_xsave_compaction: { parameters: ["buffer"], result: "void" },
} as const;

const GROUPS = {
  base,
  files,
  descriptors,
  calls,
  answers,
  images,
  dump,
  pages,
  objects,
  filling,
  fillingNow,
  agent,
  restore,
  ranges,
  chunks,
  ghosts,
  ghostsNow,
  outliving,
  bareThread,
  guard,
  tracer,
  enter,
  sockets,
  queues,
  ring,
  archive,
  waiting,
  types,
  cpu,
};
type Groups = typeof GROUPS;
export type Library<G extends keyof Groups> = Deno.DynamicLibrary<
  Groups[G]
>["symbols"];

let path: string | undefined;
const loaded: { [G in keyof Groups]?: Library<G> } = {};

/**
 * A last argument that no function of ours looks at. Deno compiles machine code
 * for each function that takes no structure, when it loads it: 0.2 ms, which
 * calls that are a tenth of a microsecond faster do not bring back.
 */
const UNUSED = { struct: ["u8"] } as const;
const unused = new Uint8Array(1);

/** The same functions, without the unused argument. */
function load(
  path: string,
  group: Record<string, Deno.ForeignFunction>,
): Record<string, unknown> {
  const uncompiled = Object.fromEntries(
    Object.entries(group).map((
      [name, definition],
    ) => [
      name,
      definition.nonblocking ? definition : {
        ...definition,
        parameters: [...definition.parameters, UNUSED],
      },
    ]),
  );
  const symbols = Deno.dlopen(path, uncompiled).symbols as Record<
    string,
    (...args: unknown[]) => unknown
  >;
  return Object.fromEntries(
    Object.entries(symbols).map(([name, call]) => [
      name,
      group[name].nonblocking
        ? call
        : (...args: unknown[]) => call(...args, unused),
    ]),
  );
}

/** The functions of one group; c/lib documents each. */
export function library<G extends keyof Groups>(group: G): Library<G> {
  let symbols = loaded[group] as Library<G> | undefined;
  if (symbols === undefined) {
    path ??= libraryPath();
    symbols = load(path, GROUPS[group]) as Library<G>;
    (loaded as Record<string, unknown>)[group] = symbols;
  }
  return symbols;
}

/**
 * Lets another call the functions of some groups, from now on.
 *
 * @param by makes what stands for a function, of its address in the library
 * @returns what ends that
 */
export function callBy(
  groups: readonly (keyof Groups)[],
  by: (address: bigint) => (...args: unknown[]) => bigint,
): () => void {
  const before = groups.map((group) => [group, library(group)] as const);
  for (const [group] of before) {
    const definitions: [string, Deno.ForeignFunction][] = Object.entries(
      GROUPS[group],
    );
    const { symbols } = Deno.dlopen(
      path!,
      Object.fromEntries(definitions.map(([key, { name }]) => [
        key,
        { name: name ?? key, type: "pointer" } as const,
      ])),
    );
    (loaded as Record<string, unknown>)[group] = Object.fromEntries(
      Object.entries(symbols).map(([key, pointer]) => [
        key,
        by(BigInt(Deno.UnsafePointer.value(pointer))),
      ]),
    );
  }
  return () => {
    for (const [group, symbols] of before) {
      (loaded as Record<string, unknown>)[group] = symbols;
    }
  };
}
