/** What the mounts of processes are like, whatever their ids, devices and groups are called. */

/** Lines of mountinfo(5) of several processes, with numbers in the order in which they occur. */
export function mountsOf(pids: readonly number[]): string[][] {
  const names = new Map<string, number>();
  const rename = (kind: string, value: string) => {
    const key = `${kind} ${value}`;
    if (!names.has(key)) names.set(key, names.size);
    return `${kind}${names.get(key)}`;
  };
  return pids.map((pid) => {
    const lines = mountInfo(pid).trimEnd().split("\n");
    const ids = new Set(lines.map((line) => line.split(" ")[0]));
    return lines.map((line) => {
      if (line === "ended") return line;
      const [id, parent, device, root, point, flags, ...rest] = line.split(" ");
      const dash = rest.indexOf("-");
      const tags = rest.slice(0, dash).map((tag) => {
        const [name, group] = tag.split(":");
        return group === undefined ? tag : `${name}:${rename("group", group)}`;
      });
      return [
        rename("mount", id),
        ids.has(parent) ? rename("mount", parent) : "outside",
        rename("device", device),
        root,
        point,
        flags,
        ...tags,
        ...rest.slice(dash),
      ].join(" ");
    });
  });
}

function mountInfo(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/mountinfo`);
  } catch {
    // Of a process that has ended the kernel tells nothing (EINVAL).
    return "ended";
  }
}
