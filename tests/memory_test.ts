/** Memory, and how a process describes itself. */
import { survives } from "./state.ts";

survives(
  "mem_private",
  "anonymous private memory, its protections, holes and gaps",
);
survives("aio", "contexts of asynchronous I/O");
survives("mem_files", "mapped files and shared anonymous memory");
survives("mem_advice", "madvise and mlock flags and guard pages");
survives("mem_growth", "heap and stacks that grow");
survives(
  "identity",
  "arguments, environment, auxv, exe, name, ids and the vdso",
);
