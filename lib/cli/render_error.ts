/** Turns errors into text: lines for people, or one line of JSON. */
import { CkptError, EXIT, type Reason } from "../error.ts";

/** An error in the shape `--json` prints it. */
export interface ErrorDocument {
  error: { exit: number; action: string; reasons: readonly Reason[] };
}

/** Any thrown value as a CkptError; what is not one is a fault of ckpt. */
export function asCkptError(thrown: unknown): CkptError {
  if (thrown instanceof CkptError) return thrown;
  return new CkptError(EXIT.failed, "internal error", [{
    object: "ckpt",
    why: thrown instanceof Error
      ? `${thrown.name}: ${thrown.message}`
      : String(thrown),
    remedy: "this is a fault of ckpt: please report it, with the log (-v4)",
  }], { cause: thrown });
}

/**
 * The first reason stands on the first line, each further one on its own; what
 * to do about it stands below it. All are shown.
 *
 * @param command "dump", "restore", ...; missing when none was given
 * @returns lines, without a line break at the end
 */
export function renderForPeople(
  error: CkptError,
  command: string | undefined,
): string {
  const name = command === undefined ? "ckpt" : `ckpt ${command}`;
  const [first, ...others] = error.reasons;
  const lines = [
    `${name}: ${printable(error.action)}: ${renderReason(first, "")}`,
  ];
  for (const reason of others) lines.push(renderReason(reason, "  "));
  return lines.join("\n");
}

/** "object: why", and what to do about it on a line of its own below. */
export function renderReason(reason: Reason, margin: string): string {
  const line = `${margin}${printable(`${reason.object}: ${reason.why}`)}`;
  return reason.remedy === undefined
    ? line
    : `${line}\n${margin}  -> ${printable(reason.remedy)}`;
}

export function errorDocument(error: CkptError): ErrorDocument {
  const { exit, action, reasons } = error;
  return { error: { exit, action, reasons } };
}

/**
 * JSON in one line. BigInt becomes a number where a number holds it exactly,
 * else a string of digits.
 */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item) => {
    if (typeof item !== "bigint") return item;
    const number = Number(item);
    return Number.isSafeInteger(number) ? number : item.toString();
  });
}

/** The stacks of an error and of its causes, for the log. */
export function renderStacks(thrown: unknown): string {
  const stacks: string[] = [];
  let current = thrown;
  // A circle of causes is a fault, but must not hang the report of another.
  while (current instanceof Error && stacks.length < 10) {
    stacks.push(current.stack ?? String(current));
    current = current.cause;
  }
  return stacks.join("\ncaused by ");
}

/**
 * Names of files and tasks are chosen by the program that is dumped: they may
 * hold line breaks and terminal escapes, which must not reach a terminal.
 */
export function printable(text: string): string {
  return text.replace(
    // deno-lint-ignore no-control-regex
    /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g,
    (character) => {
      const code = character.charCodeAt(0).toString(16);
      return code.length <= 2
        ? `\\x${code.padStart(2, "0")}`
        : `\\u${code.padStart(4, "0")}`;
    },
  );
}
