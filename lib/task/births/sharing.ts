/**
 * What processes share by flags of clone(2) they have from their birth: a child
 * that shares something with its parent is born from that. Where it shares with
 * a sibling what their parent does not have, the sibling bears it
 * (CLONE_PARENT). Pure.
 */

/** What has a number of its own in the images. */
export const SHARED_KINDS = ["vm", "sighand", "files", "fs"] as const;
export type SharedKind = typeof SHARED_KINDS[number];

export const SHARED_WORDS: Readonly<Record<SharedKind, string>> = {
  vm: "memory",
  sighand: "signal actions",
  files: "descriptors",
  fs: "directories and umask",
};

/** A process that lives. */
export interface Sharer {
  readonly pid: number;
  readonly ppid: number;
  /** That tells its parent of its end; a sibling hands its own on. */
  readonly exitSignal: number;
  /** Equal numbers of a kind mean the same object. */
  readonly objects: Readonly<Record<SharedKind, number>>;
}

/**
 * Who should be born from which sibling.
 *
 * @param sharers the root first, parents before their children
 */
export function bearingSiblings(
  sharers: readonly Sharer[],
): ReadonlyMap<number, number> {
  const byPid = new Map(sharers.map((sharer) => [sharer.pid, sharer]));
  const firsts = new Firsts();
  const bearing = new Map<number, number>();
  for (const sharer of sharers) {
    const parent = byPid.get(sharer.ppid);
    const has = (other: Sharer, kind: SharedKind) =>
      other.objects[kind] === sharer.objects[kind];
    for (const kind of SHARED_KINDS) {
      const first = firsts.of(sharer, kind);
      if (parent === undefined || has(parent, kind)) continue;
      if (
        first.pid === sharer.pid || first.ppid !== sharer.ppid ||
        first.exitSignal !== sharer.exitSignal || bearing.has(sharer.pid)
      ) continue;
      const keepsParents = SHARED_KINDS.every((other) =>
        !has(parent, other) || has(first, other)
      );
      if (keepsParents) bearing.set(sharer.pid, first.pid);
    }
  }
  return bearing;
}

/** Something that a process shares with another one, but would have apart. */
export interface LostSharing {
  readonly pid: number;
  readonly other: number;
  readonly kind: SharedKind;
}

/** @param bornFrom who is forked by whom, in a plan of births */
export function lostSharing(
  sharers: readonly Sharer[],
  bornFrom: ReadonlyMap<number, number>,
): LostSharing[] {
  const byPid = new Map(sharers.map((sharer) => [sharer.pid, sharer]));
  const firsts = new Firsts();
  return sharers.flatMap((sharer) => {
    const bearer = byPid.get(bornFrom.get(sharer.pid) ?? 0);
    return SHARED_KINDS.flatMap((kind): LostSharing[] => {
      const first = firsts.of(sharer, kind);
      return first === sharer ||
          bearer?.objects[kind] === sharer.objects[kind]
        ? []
        : [{ pid: sharer.pid, other: first.pid, kind }];
    });
  });
}

/** The first process that has an object. */
class Firsts {
  readonly #firsts = new Map<string, Sharer>();

  of(sharer: Sharer, kind: SharedKind): Sharer {
    const key = `${kind} ${sharer.objects[kind]}`;
    const known = this.#firsts.get(key);
    if (known === undefined) this.#firsts.set(key, sharer);
    return known ?? sharer;
  }
}
