/** What images of a network namespace hold that is not made again. */
import type { Reason } from "../error.ts";
import type { ImageSet } from "../image/image_set.ts";

/** nd_type of netdev.proto. */
const LOOPBACK = 1;
/** Files of `ip route save` begin with so many bytes. */
const MAGIC_BYTES = 4;

/**
 * Devices, routes and rules of packet filters that the image has, as those of
 * CRIU may.
 *
 * @param id of the network namespace, which is the tree's own
 */
export function unsupportedNetwork(
  set: ImageSet,
  id: number | undefined,
): Reason[] {
  const reasons: Reason[] = [];
  const refuse = (file: string, what: string) =>
    reasons.push({ object: file, why: `${what} not supported yet` });
  for (const { type, name } of set.read("netdev", id) ?? []) {
    if (type !== LOOPBACK) {
      refuse(`netdev-${id}.img`, `the network device ${name} is`);
    }
  }
  for (const kind of ["route", "route6"]) {
    const file = `${kind}-${id}.img`;
    if ((set.size(file) ?? 0) > MAGIC_BYTES) refuse(file, "routes are");
  }
  for (const kind of ["nftables", "iptables", "ip6tables"]) {
    const file = `${kind}-${id}.img`;
    if (set.size(file) === undefined) continue;
    if (hasRules(Deno.readTextFileSync(set.path(file)))) {
      refuse(file, "rules of packet filters are");
    }
  }
  return reasons;
}

/**
 * Whether a text of `nft list ruleset` or `iptables-save` holds more than that
 * by which CRIU has blocked the network during its dump.
 */
export function hasRules(text: string): boolean {
  return text.split("\n").some((line) =>
    /^table /.test(line) && !/^table \w+ CRIU-/.test(line) ||
    /^-A /.test(line) && !line.includes("CRIU")
  );
}
