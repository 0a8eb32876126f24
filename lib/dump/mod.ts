/** The way of a dump, and of looking whether one would work. */
export { check } from "./check.ts";
export { dump } from "./dump.ts";
