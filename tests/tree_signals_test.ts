/** Signals between processes, and descriptors that stand for processes. */
import { survives } from "./state.ts";

survives("tree_pending", "pending signals with their senders");
survives("tree_sigchld", "SIGCHLD that is pending, and none that is not");
survives("tree_death_signal", "parent-death signals");
survives("tree_owners", "owners of descriptors");
survives("tree_pidfds", "pidfds of living, dead and threads");
survives("tree_procfds", "files of /proc of living and dead");
