/** Threads: registers, what they wait for, what the kernel knows of them. */
import { survives } from "./state.ts";

survives("registers", "general purpose registers, flags and the red zone");
survives("fpu", "all extended states of the processor");
survives("threads", "many threads with masks, stacks and memory of their own");
survives("syscalls", "interrupted system calls of every kind");
survives("rseq", "restartable sequences");
survives("robust", "robust lists and thread ids that wake a joiner");
survives("sched", "policies, priorities, nice values and affinities");
survives("user_dispatch", "threads under syscall user dispatch");
