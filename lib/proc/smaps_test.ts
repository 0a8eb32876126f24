import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseSmaps } from "./smaps.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

/** Linux 6.18, x86-64. */
const TEXT = `
560b54ef9000-560b54efb000 r--p 00000000 fe:00 260386                     /srv/a b (deleted)
Size:                  8 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
Pss:                   8 kB
Pss_Dirty:             0 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         8 kB
Private_Dirty:         0 kB
Referenced:            8 kB
Anonymous:             0 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                 12 kB
SwapPss:               3 kB
Locked:                0 kB
THPeligible:           0
VmFlags: rd mr mw me 
560b54efb000-560b54f01000 rw-p 00000000 00:00 0 
Size:                 24 kB
KernelPageSize:     2048 kB
MMUPageSize:        2048 kB
Rss:                  20 kB
Pss:                  20 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:                0 kB
THPeligible:           0
ProtectionKey:        15
VmFlags: rd wr mr mw me lo dc ac sd 
`.slice(1);

/** Linux 5.4: without Pss_Dirty and KSM. */
const TEXT_5_4 = `
7f3c5a000000-7f3c5a021000 rw-p 00000000 00:00 0 
Size:                132 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   4 kB
Pss:                   4 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         4 kB
Referenced:            4 kB
Anonymous:             4 kB
LazyFree:              0 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:        0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:                0 kB
THPeligible:		1
VmFlags: rd wr mr mw me nr sd 
`.slice(1);

Deno.test("smaps gives the mapping and the flags", () => {
  const maps = parseSmaps(TEXT);
  assertEquals(maps.length, 2);
  assertEquals(maps[0], {
    start: 0x560b54ef9000,
    end: 0x560b54efb000,
    prot: 1,
    shared: false,
    offset: 0,
    major: 0xfe,
    minor: 0,
    inode: 260386n,
    path: "/srv/a b (deleted)",
    deletedMark: true,
    vmFlags: new Set(["rd", "mr", "mw", "me"]),
  });
  assertEquals([...maps[1].vmFlags].join(" "), "rd wr mr mw me lo dc ac sd");
});

Deno.test("smaps of Linux 5.4 parses", () => {
  const [mapping] = parseSmaps(TEXT_5_4);
  assertEquals(mapping.vmFlags.has("nr"), true);
  assertEquals(mapping.vmFlags.has("lo"), false);
});

Deno.test("no memory gives no mappings", () => {
  assertEquals(parseSmaps(""), []);
});

Deno.test("an incomplete or unknown record is an error that says where", () => {
  const cases: [string, string, string][] = [
    [TEXT.slice(0, TEXT.indexOf("VmFlags")), "line 25", "ends within"],
    [TEXT.replace("VmFlags: rd mr mw me \n", ""), "line 25", "no VmFlags"],
    [TEXT.replace("VmFlags: rd mr", "VmFlags: rd mrw"), "line 25", "letters"],
    [TEXT.replace("VmFlags: rd mr mw me \n", "$&\n"), "line 26", "range"],
  ];
  for (const [text, line, why] of cases) {
    const error = assertThrows(() => parseSmaps(text, "s"), CkptError);
    assertEquals(error.reasons[0].object, `s, ${line}`, why);
    assertStringIncludes(error.reasons[0].why, why);
  }
});

Deno.test("damaged smaps either parse or give a CkptError", () => {
  assertParsesOrRejects(parseSmaps, [TEXT, TEXT_5_4]);
});
