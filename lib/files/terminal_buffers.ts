/**
 * How many bytes a terminal holds before its line discipline. The kernel has
 * room for 8192 bytes in buffers of up to 1792 and one more buffer, and for
 * twice as many bytes in each; what is left of a buffer is lost when the next
 * write(2) does not fit in (drivers/tty/tty_buffer.c, pty_common_install in
 * drivers/tty/pty.c). Pure.
 */

/** Bytes that the line discipline of a master takes. */
export const LINE_DISCIPLINE = 4095;
/** Bytes of a write(2) of which no buffer has a rest that is lost. */
export const PIECE = 1024;
const LAST_PIECE = 1792;
const BEFORE_LAST = 2 * 8192;
/** As much as {@link pieceAt} gets into the buffers. */
export const MOST_IN_BUFFERS = BEFORE_LAST + 2 * LAST_PIECE;

/** How many bytes to write at once, so that as many as possible fit in. */
export function pieceAt(offset: number): number {
  return offset < BEFORE_LAST ? PIECE : LAST_PIECE;
}
