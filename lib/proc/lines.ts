/** Cuts the text of a `/proc` file into lines. */
import type { Place } from "./malformed.ts";

/**
 * The lines with their places, without the newline. A newline at the very end
 * begins no further line.
 */
export function* lines(text: string, source: string): Generator<Place> {
  let from = 0;
  for (let line = 1; from < text.length; line++) {
    let to = text.indexOf("\n", from);
    if (to < 0) to = text.length;
    yield { source, line, text: text.slice(from, to) };
    from = to + 1;
  }
}

/** The place of a file that holds one value, with its final newline removed. */
export function onlyLine(text: string, source: string): Place {
  return {
    source,
    line: 1,
    text: text.endsWith("\n") ? text.slice(0, -1) : text,
  };
}
