/** The entry point of a bundle that only dumps, or tells what it would do. */
import { check, dump } from "./commands.ts";
import { start } from "./start.ts";

start({ dump, check });
