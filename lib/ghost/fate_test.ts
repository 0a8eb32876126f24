import { assertEquals, assertMatch } from "@std/assert";
import { S_IF } from "../ffi/syscall.ts";
import { seededRandom } from "../image/testing/random.ts";
import {
  decideFate,
  formatBytes,
  isLinkName,
  linkName,
  type LostFile,
  withoutMark,
} from "./fate.ts";

const EXT4 = 0xef53n;
const NFS = 0x6969n;

/** A deleted regular file, changed as a test says. */
function lost(
  { nlink = 0n, type = S_IF.REG as number, ...change }:
    & Partial<LostFile>
    & { nlink?: bigint; type?: number } = {},
): LostFile {
  return {
    link: "/srv/x (deleted)",
    status: {
      dev: 1n,
      ino: 2n,
      mode: type | 0o644,
      nlink,
      uid: 0,
      gid: 0,
      rdev: 0n,
      size: 1n << 40n,
      allocated: 0n,
    },
    allocated: 4096n,
    fileSystem: EXT4,
    mount: "reached",
    otherName: undefined,
    mayHaveNoName: false,
    written: true,
    ...change,
  };
}

const other = "/srv/y";
const consent = { linkRemap: true };

const TABLE: [string, LostFile, Parameters<typeof decideFate>[1], string][] = [
  ["no name is left", lost(), {}, "ghost /srv/x"],
  ["no name is left, with consent", lost(), consent, "ghost /srv/x"],
  [
    "another file has its name",
    lost({ link: "/srv/x" }),
    {},
    "ghost /srv/x",
  ],
  [
    "it is on AUFS",
    lost({ fileSystem: 0x61756673n, otherName: other }),
    consent,
    "refused",
  ],
  [
    "another name is known",
    lost({ nlink: 1n, otherName: other }),
    consent,
    "elsewhere /srv/y",
  ],
  ["another name is not known", lost({ nlink: 2n }), {}, "refused"],
  ["... with consent", lost({ nlink: 2n }), consent, "link /srv/x"],
  [
    "a directory, whatever its link count",
    lost({ nlink: 2n, type: S_IF.DIR }),
    consent,
    "ghost /srv/x",
  ],
  [
    "a lower file of an overlay",
    lost({ nlink: 1n, mayHaveNoName: true, written: false }),
    {},
    "ghost /srv/x",
  ],
  [
    "a file of an overlay that is written",
    lost({ nlink: 1n, mayHaveNoName: true }),
    {},
    "refused",
  ],
  [
    "a file of an overlay, with consent",
    lost({ nlink: 1n, mayHaveNoName: true, written: false }),
    consent,
    "link /srv/x",
  ],
  [
    "the only name is one that NFS made",
    lost({
      link: "/srv/.nfs0123456789abcdef01234567",
      nlink: 1n,
      fileSystem: NFS,
    }),
    {},
    "ghost /srv/.nfs0123456789abcdef01234567",
  ],
  [
    "a name that NFS made, and another one",
    lost({
      link: "/srv/.nfs0123456789abcdef01234567",
      nlink: 2n,
      fileSystem: NFS,
    }),
    consent,
    "link /srv/.nfs0123456789abcdef01234567",
  ],
  [
    "such a name on another file system",
    lost({ link: "/srv/.nfs0123456789abcdef01234567", nlink: 1n }),
    consent,
    "link /srv/.nfs0123456789abcdef01234567",
  ],
  [
    "no name is left, but it is mounted where it was",
    lost({ otherName: "/srv/x", mount: "covered" }),
    {},
    "elsewhere /srv/x",
  ],
  ["its mount is gone", lost({ mount: "gone" }), consent, "refused"],
  ["its path is covered", lost({ mount: "covered" }), consent, "refused"],
  ["a file of proc", lost({ fileSystem: 0x9fa0n }), consent, "refused"],
  ["at the limit", lost({ allocated: 1n << 30n }), {}, "ghost /srv/x"],
  ["above the limit", lost({ allocated: (1n << 30n) + 1n }), {}, "refused"],
  ["above another", lost(), { ghostLimit: 4095n }, "refused"],
  [
    "no limit for what has no content",
    lost({ type: S_IF.DIR }),
    { ghostLimit: 0n },
    "ghost /srv/x",
  ],
];

for (const [what, file, options, expected] of TABLE) {
  Deno.test(`fate: ${what}`, () => {
    const fate = decideFate(file, options);
    assertEquals(
      fate.kind === "refused" ? fate.kind : `${fate.kind} ${fate.path}`,
      expected,
    );
  });
}

Deno.test("a refusal names what would help: the option with the value that is enough", () => {
  const allocated = (5n << 20n) + 1n;
  const fate = decideFate(lost({ allocated }), { ghostLimit: 1n << 20n });
  if (fate.kind !== "refused") throw new Error(fate.kind);
  assertMatch(fate.why, /its 5\.1 MiB of content are more than .* 1 MiB$/);
  assertEquals(fate.option, "--ghost-limit 6M");
  assertEquals(
    decideFate(lost({ allocated }), { ghostLimit: 6n << 20n }).kind,
    "ghost",
  );
  const link = decideFate(lost({ nlink: 3n }), {});
  if (link.kind !== "refused") throw new Error(link.kind);
  assertEquals(link.option, "--link-remap");
  assertMatch(link.why, /but 3 other names do/);
});

Deno.test("whatever the file is, consent never refuses more, and nothing is linked without it", () => {
  const random = seededRandom(1);
  const pick = <T>(values: readonly T[]) =>
    values[Math.floor(random() * values.length)];
  for (let i = 0; i < 5000; i++) {
    const file = lost({
      nlink: pick([0n, 1n, 2n, 5n]),
      type: pick(Object.values(S_IF).filter((type) => type !== S_IF.MT)),
      link: pick(["/a (deleted)", "/a/b", "/.nfs0123456789abcdef01234567"]),
      fileSystem: pick([EXT4, NFS, 0x9fa0n]),
      mayHaveNoName: random() < 0.3,
      mount: pick(["reached", "reached", "covered", "gone"] as const),
      otherName: pick([undefined, other]),
      written: pick([true, false]),
      allocated: pick([0n, 4096n, 1n << 40n]),
    });
    const without = decideFate(file, {});
    const withConsent = decideFate(file, consent);
    assertEquals(without.kind === "link", false);
    if (without.kind !== "refused") {
      assertEquals(withConsent.kind !== "refused", true);
    }
    if (withConsent.kind === "link") {
      assertEquals(file.status.nlink > 0n, true);
      assertEquals(file.otherName, undefined);
    }
    if (file.status.nlink === 0n && without.kind !== "refused") {
      assertEquals(without.kind, file.otherName ? "elsewhere" : "ghost");
    }
  }
});

Deno.test("only the mark of the kernel is taken from a path", () => {
  assertEquals(withoutMark("/a (deleted)"), "/a");
  assertEquals(withoutMark("/a (deleted) (deleted)"), "/a (deleted)");
  assertEquals(withoutMark("/a"), "/a");
  assertEquals(isLinkName(`/a/${linkName(12)}`), true);
  assertEquals(isLinkName("/a/link_remap.x"), false);
});

Deno.test("bytes are told so that a limit can be compared", () => {
  assertEquals(
    [0n, 4096n, 1n << 20n, (1n << 20n) + 1n, 1n << 30n].map(formatBytes),
    ["0 bytes", "4096 bytes", "1 MiB", "1.1 MiB", "1024 MiB"],
  );
});
