/** Files below an open directory, by paths of any length. */
import { close, O, syscallBuffer1, terminated } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";

/** PATH_MAX, with room for the zero. */
const LONGEST = 4000;

/**
 * openat(2) below a directory; no link is followed in the last part.
 *
 * @param path "." or "./a/b", without ".." and without links on the way
 * @throws SyscallError
 */
export function openBelow(
  root: number,
  path: string,
  flags: number,
  mode = 0,
): number {
  let from = root;
  try {
    let rest = path;
    while (rest.length > LONGEST) {
      const cut = rest.lastIndexOf("/", LONGEST);
      const next = openAt(from, rest.slice(0, cut), O.PATH | O.DIRECTORY, 0);
      if (from !== root) close(from);
      from = next;
      rest = `.${rest.slice(cut)}`;
    }
    return openAt(from, rest, flags, mode);
  } finally {
    if (from !== root) close(from);
  }
}

function openAt(
  directory: number,
  path: string,
  flags: number,
  mode: number,
): number {
  return Number(
    syscallBuffer1(
      "openat",
      BigInt(directory),
      terminated(encodeText(path)),
      BigInt(flags | O.NOFOLLOW | O.CLOEXEC),
      BigInt(mode),
    ),
  );
}
