/** The clocks of a time namespace (time_namespaces(7)). */
import type { timens_entry } from "../image/schema.gen.ts";
import { clockNow } from "../task/posix_timers.ts";

const CLOCKS = { monotonic: 1, boottime: 7 } as const;
const SECOND = 1_000_000_000n;

/**
 * Offsets as /proc/PID/timens_offsets tells them, in nanoseconds; none where
 * the kernel has no such namespaces.
 */
export function parseClockOffsets(text: string): Map<string, bigint> {
  return new Map(
    text.trim().split("\n").flatMap((line) => {
      const [clock, seconds, nanoseconds] = line.trim().split(/\s+/);
      return nanoseconds === undefined
        ? []
        : [[clock, BigInt(seconds) * SECOND + BigInt(nanoseconds)] as const];
    }),
  );
}

/**
 * What to write there for clocks that go on from the time of an image. The
 * kernel counts from the clocks of the first namespace, whichever ckpt is in.
 *
 * @param now CLOCK_MONOTONIC and CLOCK_BOOTTIME of ckpt, nanoseconds
 * @param own offsets of ckpt's namespace
 */
export function clockOffsets(
  image: timens_entry,
  now: Record<keyof typeof CLOCKS, bigint>,
  own: ReadonlyMap<string, bigint>,
): string {
  return (["monotonic", "boottime"] as const).map((clock) => {
    const { tv_sec, tv_nsec } = image[clock];
    const wanted = tv_sec * SECOND + tv_nsec;
    const offset = wanted - (now[clock] - (own.get(clock) ?? 0n));
    const rest = (offset % SECOND + SECOND) % SECOND;
    return `${clock} ${(offset - rest) / SECOND} ${rest}\n`;
  }).join("");
}

/** The same for the clocks of this host. */
export function clockOffsetsHere(image: timens_entry): string {
  return clockOffsets(image, {
    monotonic: clockNow(CLOCKS.monotonic),
    boottime: clockNow(CLOCKS.boottime),
  }, parseClockOffsets(Deno.readTextFileSync("/proc/self/timens_offsets")));
}
