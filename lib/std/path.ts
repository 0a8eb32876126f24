/**
 * `@std/path` for this project: the POSIX half only (ckpt runs on Linux), by
 * name, so that a bundle carries nothing else.
 */

// @ts-types="./path.d.ts"
export { basename } from "deno-std/path/posix/basename.js";
// @ts-types="./path.d.ts"
export { dirname } from "deno-std/path/posix/dirname.js";
// @ts-types="./path.d.ts"
export { extname } from "deno-std/path/posix/extname.js";
// @ts-types="./path.d.ts"
export { fromFileUrl } from "deno-std/path/posix/from_file_url.js";
// @ts-types="./path.d.ts"
export { isAbsolute } from "deno-std/path/posix/is_absolute.js";
// @ts-types="./path.d.ts"
export { join } from "deno-std/path/posix/join.js";
// @ts-types="./path.d.ts"
export { normalize } from "deno-std/path/posix/normalize.js";
// @ts-types="./path.d.ts"
export { relative } from "deno-std/path/posix/relative.js";
// @ts-types="./path.d.ts"
export { resolve } from "deno-std/path/posix/resolve.js";
// @ts-types="./path.d.ts"
export { toFileUrl } from "deno-std/path/posix/to_file_url.js";
