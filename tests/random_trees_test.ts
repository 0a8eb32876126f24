/** Random trees of fixed seeds: all that /proc shows of them is the same before and after, and each verifies itself. */
import { LONG } from "./harness.ts";
import { survivesAtRandom } from "./state.ts";

const SEEDS = 50;
/** Processes of the tree with this seed. */
const size = (seed: number) => LONG ? 5 + seed * 4 : 3 + seed % 16;

for (let seed = 1; seed <= SEEDS; seed++) {
  survivesAtRandom("random_tree", seed, size(seed), "processes");
}
