/** The entry point of a bundle that only restores. */
import { restore } from "./commands.ts";
import { start } from "./start.ts";

start({ restore });
