/**
 * Options from configuration files, in CRIU's syntax (criu(8), CONFIGURATION
 * FILES): one long option per line without its dashes, then its value, in
 * double quotes if it holds white space; `#` starts a comment.
 */
import { CkptError, EXIT } from "../error.ts";

const ACTION = "reading the configuration";

/** A configuration file is written by hand; more than this is a mistake. */
const MAX_BYTES = 1 << 20;

/**
 * @returns the lines as long options: `--name` or `--name=value`
 * @throws CkptError (usage) that names the line
 */
export function parseConfiguration(text: string, path: string): string[] {
  const options: string[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const fields = splitFields(line);
    if (fields === undefined) {
      throw badLine(path, index, "a double quote is not closed");
    }
    const [name, value] = fields;
    if (name === undefined) continue;
    if (fields.length > 2) {
      throw badLine(path, index, "holds more than an option and its value");
    }
    if (!/^[a-z][a-z-]*$/.test(name)) {
      throw badLine(path, index, `"${name}" is not the name of an option`);
    }
    options.push(value === undefined ? `--${name}` : `--${name}=${value}`);
  }
  return options;
}

/**
 * Reads the default files, unless told not to, then the one given.
 *
 * @param chosen the value of `--config`; this file has to exist
 * @throws CkptError (usage) when a file cannot be read or understood
 */
export function readConfiguration(
  useDefaults: boolean,
  chosen: string | undefined,
): string[] {
  const options: string[] = [];
  for (const path of useDefaults ? defaultPaths() : []) {
    const text = readText(path, true);
    if (text !== undefined) options.push(...parseConfiguration(text, path));
  }
  if (chosen !== undefined) {
    const text = readText(chosen);
    if (text === undefined) {
      throw new CkptError(EXIT.usage, ACTION, [{
        object: chosen,
        why: "there is no such file",
        remedy: "create it, or leave --config out",
      }]);
    }
    options.push(...parseConfiguration(text, chosen));
  }
  return options;
}

function defaultPaths(): string[] {
  const home = Deno.env.get("HOME");
  const paths = ["/etc/ckpt/default.conf"];
  if (home) paths.push(`${home}/.config/ckpt/default.conf`);
  return paths;
}

/**
 * @param mayBeHidden in a directory that may not be entered, such as the home
 * of another user that $HOME still names after su(1): then it is not meant
 * @returns undefined when there is no such file
 */
function readText(path: string, mayBeHidden = false): string | undefined {
  let hidden = mayBeHidden;
  try {
    // A fifo would block for ever, and a device never end.
    const status = Deno.statSync(path);
    hidden = false;
    if (!status.isFile) throw new Error("not a regular file");
    if (status.size > MAX_BYTES) {
      throw new Error(`more than ${MAX_BYTES} bytes`);
    }
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (
      error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory ||
      hidden && error instanceof Deno.errors.PermissionDenied
    ) return undefined;
    throw new CkptError(EXIT.usage, ACTION, [{
      object: path,
      why: error instanceof Error ? error.message : String(error),
      remedy: "make it readable, or use --no-default-config",
    }], { cause: error });
  }
}

function badLine(path: string, index: number, why: string): CkptError {
  return new CkptError(EXIT.usage, ACTION, [{
    object: `${path}, line ${index + 1}`,
    why,
    remedy: 'write one option per line, as in: work-dir "/some where"',
  }]);
}

/** @returns undefined when a quote is not closed */
function splitFields(line: string): string[] | undefined {
  const fields: string[] = [];
  let i = 0;
  while (i < line.length) {
    if (/\s/.test(line[i])) {
      i++;
    } else if (line[i] === "#") {
      break;
    } else if (line[i] === '"') {
      let field = "";
      for (i++; line[i] !== '"'; i++) {
        if (i >= line.length) return undefined;
        // Only the quote can be escaped; any other backslash is a backslash.
        if (line[i] === "\\" && line[i + 1] === '"') i++;
        field += line[i];
      }
      i++;
      fields.push(field);
    } else {
      const field = /^[^\s#]+/.exec(line.slice(i))![0];
      i += field.length;
      fields.push(field);
    }
  }
  return fields;
}
