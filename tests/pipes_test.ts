/** Pipes and fifos whose ends are all in the tree. */
import { survives } from "./state.ts";

survives("pipes", "pipes with content, sizes, flags and closed ends");
survives("tree_pipes", "pipes between processes");
survives("tree_fifos", "named pipes");
