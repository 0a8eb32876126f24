import { assert, assertEquals } from "@std/assert";
import { type Kind, KINDS, refusalOfLink } from "./kinds.ts";

const ALL = Object.values<Kind>(KINDS);

/** The rows of docs/descriptors.md: kind, whether it comes back, what of it. */
function documented(): string[][] {
  const page = new URL("../../docs/descriptors.md", import.meta.url);
  return Deno.readTextFileSync(page).split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()))
    .slice(2);
}

Deno.test("docs/descriptors.md is the table of kinds", () => {
  assertEquals(
    documented(),
    ALL.map(({ name, type, state, remedy }) => [
      name,
      type === undefined && !name.includes("socket") ? "refused" : "yes",
      remedy === undefined ? state : `${state}: ${remedy}`,
    ]),
  );
});

Deno.test("links of the kernel lead to their kinds, and only to one", () => {
  const links: Record<string, string> = {
    "pipe:[123]": "pipe",
    "anon_inode:[eventfd]": "eventfd",
    "anon_inode:[timerfd]": "timerfd",
    "anon_inode:[signalfd]": "signalfd",
    "anon_inode:[eventpoll]": "epoll",
    "anon_inode:inotify": "inotify",
    "anon_inode:[fanotify]": "fanotify",
    "/memfd:a name (deleted)": "memfd",
    "anon_inode:[pidfd]": "pidfd",
    "pidfd:[77]": "pidfd",
    "net:[4026531840]": "namespace",
    "socket:[5]": "socket",
    "anon_inode:[userfaultfd]": "userfaultfd",
    "anon_inode:bpf-map": "bpf map",
    "anon_inode:[io_uring]": "io_uring",
    "anon_inode:bpf-prog": "bpf program",
    "anon_inode:bpf_link": "bpf link",
    "anon_inode:btf": "btf",
    "anon_inode:[perf_event]": "perf",
    "anon_inode:[landlock-ruleset]": "landlock",
    "/secretmem (deleted)": "secret",
    "anon_inode:[fscontext]": "mount",
    "anon_inode:kvm-vm": "virtual",
    "anon_inode:seccomp notify": "seccomp",
  };
  for (const [link, wanted] of Object.entries(links)) {
    const found = Object.entries<Kind>(KINDS)
      .filter(([kind, { link: form }]) => kind !== "other" && form?.test(link))
      .map(([kind]) => kind);
    assertEquals(found, [wanted], link);
  }
});

Deno.test("what is refused is refused by name, also what nobody knows", () => {
  for (const { name, type, link, state } of ALL) {
    if (type !== undefined || link === undefined) continue;
    assert(state !== "", name);
  }
  assertEquals(
    refusalOfLink("anon_inode:[perf_event]")?.remedy,
    "end the profiler",
  );
  assertEquals(
    refusalOfLink("anon_inode:[from the future]")?.why,
    "a kernel object is not supported: ckpt does not know this kind",
  );
  assertEquals(refusalOfLink("/a/path"), undefined);
});
