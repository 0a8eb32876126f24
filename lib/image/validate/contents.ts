/** Checks what is in message queues, maps of eBPF, tuns and io_urings. */
import { imageName } from "../kinds.ts";
import { fd_types, type file_entry } from "../schema.gen.ts";
import type { FileTable } from "./file_table.ts";
import type { Findings } from "./findings.ts";

const DEVICE_NAME = /^[^\s/]{1,15}$/;
/** struct ifaddrmsg. */
const SHORTEST_MESSAGE = 8;

/** What is in message queues and in maps of eBPF, and which are io_urings. */
export function checkContents(findings: Findings, table: FileTable): void {
  const seen = new Set<number>();
  (findings.read("ckpt-queues", undefined) ?? []).forEach((entry, place) => {
    for (const id of entry.files) {
      const wrong = (why: string) =>
        findings.add(imageName("ckpt-queues"), place, "files", why);
      if (!table.has(fd_types.REG, id)) wrong(`${id} is no such file`);
      if (seen.has(id)) wrong(`${id} is there twice`);
      seen.add(id);
    }
  });
  (findings.read("ckpt-tuns", undefined) ?? []).forEach((entry, place) => {
    const { id, name, link } = entry;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-tuns"), place, field, why);
    if (!table.has(fd_types.REG, id)) wrong("id", `${id} is no device`);
    if (!DEVICE_NAME.test(name)) {
      wrong("name", `"${name}" is no name of a network device`);
    }
    for (const { name } of link?.sysctls ?? []) {
      if (name.startsWith("net/") && !name.includes("..")) continue;
      wrong("link.sysctls", `"${name}" is no value of a network device`);
    }
    const messages = [...link?.addresses ?? [], ...link?.routes ?? []];
    if (messages.some(({ length }) => length < SHORTEST_MESSAGE)) {
      wrong("link", "has an address or a route that is none");
    }
  });
  (findings.read("ckpt-rings", undefined) ?? []).forEach(({ id }, place) => {
    const wrong = (why: string) =>
      findings.add(imageName("ckpt-rings"), place, "id", why);
    if (!table.has(fd_types.REG, id)) wrong(`${id} is no such file`);
    if (seen.has(id)) wrong(`${id} is there twice`);
    seen.add(id);
  });
  const maps = new Map<number, file_entry["bpf"]>();
  table.each(fd_types.BPFMAP, ({ bpf }) => {
    if (bpf !== undefined) maps.set(bpf.map_id, bpf);
  });
  (findings.read("bpfmap-data", undefined) ?? []).forEach((data, place) => {
    const { map_id, keys_bytes, values_bytes, count } = data;
    const wrong = (field: string, why: string) =>
      findings.add(imageName("bpfmap-data"), place, field, why);
    const map = maps.get(map_id);
    if (map === undefined) return wrong("map_id", `${map_id} is no map`);
    if (count > map.max_entries) wrong("count", `${count} are too many`);
    if (keys_bytes !== count * map.key_size) {
      wrong("keys_bytes", `${keys_bytes} are not those of ${count} keys`);
    }
    if (values_bytes !== count * map.value_size) {
      wrong("values_bytes", `${values_bytes} are not those of ${count} values`);
    }
  });
}
