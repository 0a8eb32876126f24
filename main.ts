/** The entry point of ckpt, with all commands. */
import { check, clean, dump, restore, show } from "./lib/cli/commands.ts";
import { start } from "./lib/cli/start.ts";

start({ check, clean, dump, restore, show });
