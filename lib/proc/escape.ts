/**
 * Undoes the octal escapes of paths in `/proc` (`mangle_path` and
 * `string_escape_mem` in the kernel: a backslash and three octal digits for
 * each byte of a set that differs by file).
 */

const BACKSLASH = 92;

/**
 * Replaces every escape `\NNN` of an ASCII character. The kernel escapes no
 * other bytes; anything else that begins with a backslash stays as it is.
 */
export function unescapeOctal(text: string): string {
  let at = text.indexOf("\\");
  if (at < 0) return text;
  let out = "";
  let copied = 0;
  while (at >= 0) {
    const code = octalAt(text, at + 1);
    if (code >= 0) {
      out += text.slice(copied, at) + String.fromCharCode(code);
      copied = at + 4;
      at = text.indexOf("\\", copied);
    } else {
      at = text.indexOf("\\", at + 1);
    }
  }
  return out + text.slice(copied);
}

/**
 * Undoes only `\012`, the one escape of maps and smaps. These files do not
 * escape the backslash, so a name that really holds the four characters
 * `\012` cannot be told from one that holds a newline.
 */
export function unescapeNewline(text: string): string {
  return text.includes("\\") ? text.replaceAll("\\012", "\n") : text;
}

/**
 * Undoes the escapes of `Name:` in status: `\n` for a newline and `\\` for a
 * backslash (`proc_task_name` in fs/proc/array.c).
 */
export function unescapeTaskName(text: string): string {
  if (text.indexOf("\\") < 0) return text;
  let out = "";
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) === BACKSLASH && i + 1 < text.length) {
      const next = text[i + 1];
      if (next === "n" || next === "\\") {
        out += next === "n" ? "\n" : "\\";
        i++;
        continue;
      }
    }
    out += text[i];
  }
  return out;
}

function octalAt(text: string, at: number): number {
  if (at + 3 > text.length) return -1;
  let code = 0;
  for (let i = at; i < at + 3; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (digit < 0 || digit > 7) return -1;
    code = code * 8 + digit;
  }
  return code < 128 ? code : -1;
}
