/** `@std/assert`: assertions for the tests. Nothing at run time imports it. */

// @ts-types="./assert.d.ts"
export * from "deno-std/assert/mod.js";
