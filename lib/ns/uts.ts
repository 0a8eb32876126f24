/** The names of a host, as a uts namespace has them (uts_namespaces(7)). */
import { syscallBuffer0 } from "../ffi/syscall.ts";
import type { utsns_entry } from "../image/schema.gen.ts";

const NAMES = {
  nodename: "/proc/sys/kernel/hostname",
  domainname: "/proc/sys/kernel/domainname",
} as const;

/** Of the namespace that ckpt is in. */
export function dumpUts(): utsns_entry {
  const read = (path: string) => Deno.readTextFileSync(path).replace(/\n$/, "");
  return { nodename: read(NAMES.nodename), domainname: read(NAMES.domainname) };
}

/** Names the host in the namespace that ckpt is in. */
export function restoreUts({ nodename, domainname }: utsns_entry): void {
  const name = (call: "sethostname" | "setdomainname", text: string) => {
    const bytes = new TextEncoder().encode(text);
    syscallBuffer0(call, bytes, BigInt(bytes.length));
  };
  name("sethostname", nodename);
  name("setdomainname", domainname);
}
