/** Where the tree that is named lives: in the namespaces of ckpt or in its own. */
import type { Reason } from "../error.ts";
import { enterTree } from "../ns/enter.ts";
import { inside } from "../ns/inside.ts";
import { refuseImpossible } from "./survey.ts";

/**
 * Goes to the namespaces of the tree, where these are not ckpt's.
 *
 * @returns what the root is called here, and where the user called ckpt
 */
export function placeOf(
  pid: number,
  action: string,
): { pid: number; pidOutside: number } {
  if (inside() === undefined) refuseImpossible(pid, action);
  const place = enterTree(pid, action);
  return place === undefined
    ? { pid, pidOutside: pid }
    : { pid: place.root, pidOutside: place.rootOutside };
}

export function refusedRoot(root: string | undefined): Reason[] {
  return root === undefined || root === "/" ? [] : [{
    object: `--root ${root}`,
    why: "a dump finds the root of the program by itself",
    remedy: "leave it out; give it to the restore",
  }];
}
