import { assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { DescriptorNumbers } from "./descriptor_numbers.ts";

Deno.test("numbers are taken from zero on, and freed ones again", () => {
  const numbers = new DescriptorNumbers();
  assertEquals([numbers.take(), numbers.take(), numbers.take()], [0, 1, 2]);
  numbers.takeAt(4);
  numbers.free(1);
  assertEquals([numbers.take(), numbers.take(), numbers.take()], [1, 3, 5]);
});

Deno.test("each number is the lowest that is free, whatever came before", () => {
  const random = seededRandom(5);
  for (let round = 0; round < 200; round++) {
    const numbers = new DescriptorNumbers();
    const open = new Set<number>();
    for (let step = 0; step < 100; step++) {
      const fd = Math.floor(random() * 40);
      const choice = random();
      if (choice < 0.4) {
        let lowest = 0;
        while (open.has(lowest)) lowest++;
        assertEquals(numbers.take(), lowest);
        open.add(lowest);
      } else if (choice < 0.7) {
        numbers.takeAt(fd);
        open.add(fd);
      } else if (open.delete(fd)) {
        numbers.free(fd);
      }
    }
  }
});
