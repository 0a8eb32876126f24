/** Random graphs of descriptors of fixed seeds: which are one open file, and what is in each, is the same before and after. */
import { LONG } from "./harness.ts";
import { survivesAtRandom } from "./state.ts";

const SEEDS = LONG ? 300 : 12;

for (let seed = 1; seed <= SEEDS; seed++) {
  survivesAtRandom("random_descriptors", seed, 40 + seed * 7 % 120, "steps");
}
