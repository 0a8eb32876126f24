import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { DescriptionIndex, type DescriptorPlace } from "./description_index.ts";

/** Tells for each place which description is behind it. */
class Model {
  readonly #behind = new Map<DescriptorPlace, number>();
  questions = 0;

  place(pid: number, fd: number, description: number): DescriptorPlace {
    const place = { pid, fd };
    this.#behind.set(place, description);
    return place;
  }

  readonly compare = (a: DescriptorPlace, b: DescriptorPlace): number => {
    this.questions++;
    return this.#behind.get(a)! - this.#behind.get(b)!;
  };
}

Deno.test("every description is known by its first place, over all processes", () => {
  const random = seededRandom(3);
  const below = (n: number) => Math.floor(random() * n);
  for (let round = 0; round < 300; round++) {
    const model = new Model();
    const index = new DescriptionIndex(model.compare);
    const firsts = new Map<number, DescriptorPlace>();
    const kinds = 1 + below(5);
    for (let i = 0; i < 120; i++) {
      const description = below(60);
      const place = model.place(below(9), i, description);
      const found = index.find(place, `looks ${description % kinds}`);
      assert(found === firsts.get(description));
      if (found === undefined) firsts.set(description, place);
    }
  }
});

Deno.test("ten thousand that look alike need few questions", () => {
  const model = new Model();
  const index = new DescriptionIndex(model.compare);
  const random = seededRandom(4);
  const COUNT = 10_000;
  for (let i = 0; i < COUNT; i++) {
    assertEquals(
      index.find(model.place(1, i, random()), "/dev/null"),
      undefined,
    );
  }
  assert(model.questions < COUNT * Math.log2(COUNT));
});

Deno.test("what a forked process has is found with one question each", () => {
  const model = new Model();
  const index = new DescriptionIndex(model.compare);
  const COUNT = 1000;
  for (let fd = 0; fd < COUNT; fd++) {
    // Every second one is a duplicate.
    index.find(model.place(1, fd, fd >> 1), "/dev/null");
  }
  for (const pid of [2, 3]) {
    model.questions = 0;
    for (let fd = 0; fd < COUNT; fd++) {
      const found = index.find(model.place(pid, fd, fd >> 1), "/dev/null");
      assertEquals(found, { pid: 1, fd: fd & ~1 });
    }
    assertEquals(model.questions, COUNT);
  }
});

Deno.test("what looks different is not asked about", () => {
  const model = new Model();
  const index = new DescriptionIndex(model.compare);
  for (let i = 0; i < 100; i++) index.find(model.place(1, i, i), `${i}`);
  assertEquals(model.questions, 0);
});
