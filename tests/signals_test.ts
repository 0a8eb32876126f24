/** Signals and timers. */
import { survives } from "./state.ts";

survives("signals_pending", "pending signals with their siginfo");
survives("signal_actions", "the actions of all signals");
survives("itimers", "interval timers");
survives("posix_timers", "POSIX timers with ids, overruns and expiries");
survives("in_handler", "programs inside nested signal handlers");
