/** `/proc/PID/cgroup` (cgroups(7); proc_cgroup_show in the kernel). */
import { lines } from "./lines.ts";
import { malformed } from "./malformed.ts";
import { decimal } from "./numbers.ts";
import { DELETED_MARK } from "./maps.ts";

export interface CgroupMembership {
  /** 0 for the unified hierarchy (version 2). */
  readonly hierarchy: number;
  /** Controllers of a version 1 hierarchy, or one "name=..."; else empty. */
  readonly controllers: readonly string[];
  /**
   * From the root of the reader's cgroup namespace; begins with "/..", when
   * it lies outside of that. Kept whole, with " (deleted)".
   */
  readonly path: string;
  /**
   * The path ends in " (deleted)", as the kernel marks a cgroup that was
   * removed. A living cgroup may be called so too.
   */
  readonly deletedMark: boolean;
}

/** Parses the whole of cgroup. */
export function parseCgroup(
  text: string,
  source = "cgroup",
): CgroupMembership[] {
  const memberships: CgroupMembership[] = [];
  for (const place of lines(text, source)) {
    const first = place.text.indexOf(":");
    const second = place.text.indexOf(":", first + 1);
    if (first < 0 || second < 0) {
      throw malformed(place, "expected HIERARCHY:CONTROLLERS:PATH");
    }
    const controllers = place.text.slice(first + 1, second);
    const path = place.text.slice(second + 1);
    if (!path.startsWith("/")) throw malformed(place, "expected a path");
    memberships.push({
      hierarchy: decimal(place.text.slice(0, first), place),
      controllers: controllers === "" ? [] : controllers.split(","),
      path,
      deletedMark: path.endsWith(DELETED_MARK),
    });
  }
  return memberships;
}
