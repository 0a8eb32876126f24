/** The steps by which a process tree is born again, and what they are for. */

/**
 * Each step is done by the agent in the process `by`, one step after the other.
 *
 * A process is forked with exactly the pid `child` (clone3(2) with set_tid); it
 * begins in the session and group of `by`, as its child, or as another child of
 * its parent.
 */
export type Step =
  /** A helper has no exit signal: its parent must not hear of it. */
  | {
    readonly kind: "fork";
    readonly by: number;
    readonly child: number;
    readonly role: "process" | "helper";
    /** CLONE_PARENT. */
    readonly asSibling?: true;
  }
  | { readonly kind: "setsid"; readonly by: number }
  /** Its own group when `group` is its own pid. */
  | { readonly kind: "setpgid"; readonly by: number; readonly group: number }
  /**
   * PR_SET_CHILD_SUBREAPER, for the moment in which orphans come to `by`; the
   * last such step of a process turns it off.
   */
  | { readonly kind: "subreaper"; readonly by: number; readonly on: boolean }
  /** The memory of `by` is rebuilt. */
  | { readonly kind: "memory"; readonly by: number }
  /** A helper exits; `reap` follows. */
  | { readonly kind: "end"; readonly by: number }
  /** wait4(2) for the helper `child`, with __WALL: it has no exit signal. */
  | { readonly kind: "reap"; readonly by: number; readonly child: number }
  /** A process of the image becomes a zombie. */
  | { readonly kind: "die"; readonly by: number };

/** Who is forked by whom. */
export function bornFrom(steps: readonly Step[]): ReadonlyMap<number, number> {
  return new Map(
    steps.flatMap((step) =>
      step.kind === "fork" ? [[step.child, step.by] as const] : []
    ),
  );
}
