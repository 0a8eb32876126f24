/** The entry point of a bundle that only dumps. */
import { dump } from "./commands.ts";
import { start } from "./start.ts";

start({ dump });
