// Types of the POSIX path functions: deno-std ships JavaScript only.

/** Last part of `path`, without `suffix` when it ends with it. */
export function basename(path: string | URL, suffix?: string): string;
/** All but the last part of `path`; `.` when there is only one part. */
export function dirname(path: string | URL): string;
/** Extension of `path` with its dot, or the empty string. */
export function extname(path: string | URL): string;
/** The path that a `file:` URL names; throws TypeError for other schemes. */
export function fromFileUrl(url: string | URL): string;
/** Whether `path` begins at the root. */
export function isAbsolute(path: string): boolean;
/** Joins with `/` and normalizes; `.` for nothing. */
export function join(path?: string | URL, ...paths: string[]): string;
/** Resolves `.` and `..` in the text of the path; touches no file. */
export function normalize(path: string | URL): string;
/** The path that leads from `from` to `to`, both taken against the cwd. */
export function relative(from: string, to: string): string;
/** Absolute path: segments from the right until one is absolute, else cwd. */
export function resolve(...segments: string[]): string;
/** The `file:` URL of an absolute path; throws TypeError for a relative one. */
export function toFileUrl(path: string): URL;
