import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseStatus, parseVmLocked } from "./status.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

/** Linux 6.18: a process with two threads. */
const TEXT = `
Name:	a) R 1 (b
Umask:	0027
State:	S (sleeping)
Tgid:	31675
Ngid:	0
Pid:	31677
PPid:	31659
TracerPid:	17
Uid:	1000	1001	1002	1003
Gid:	100	101	102	4294967294
FDSize:	256
Groups:	4 24 65533 
NStgid:	31675	12	1
NSpid:	31677	14	3
NSpgid:	31659	0	0
NSsid:	1685	0	0
Kthread:	0
VmPeak:	   10716 kB
VmSize:	   10716 kB
VmLck:	      12 kB
VmRSS:	    1448 kB
VmSwap:	       8 kB
HugetlbPages:	       0 kB
CoreDumping:	0
THP_enabled:	1
untag_mask:	0xffffffffffffffff
Threads:	2
SigQ:	5/18446744073709551615
SigPnd:	0000000000000800
ShdPnd:	8000000000000000
SigBlk:	8000000000000800
SigIgn:	0000000000000206
SigCgt:	0000000100000000
CapInh:	0000000000000001
CapPrm:	000001fffeffffff
CapEff:	000001fffeffffff
CapBnd:	000001fffeffffff
CapAmb:	0000000000000002
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	3
Speculation_Store_Bypass:	thread vulnerable
SpeculationIndirectBranch:	conditional enabled
Cpus_allowed:	3
Cpus_allowed_list:	0-1
Mems_allowed:	00000000,00000001
Mems_allowed_list:	0
voluntary_ctxt_switches:	2
nonvoluntary_ctxt_switches:	0
x86_Thread_features:	shstk wrss 
x86_Thread_features_locked:	
`.slice(1);

/** What a zombie and Linux 5.4 lack. */
const ONLY_LATER_OR_ALIVE =
  /^(Umask|Kthread|Vm[A-Za-z]+|HugetlbPages|CoreDumping|THP_enabled|untag_mask|Seccomp_filters|SpeculationIndirectBranch|x86_Thread\w+):.*\n/gm;

Deno.test("status gives what decides something", () => {
  assertEquals(parseStatus(TEXT), {
    name: "a) R 1 (b",
    umask: 0o27,
    tgid: 31675,
    tracerPid: 17,
    uid: [1000, 1001, 1002, 1003],
    gid: [100, 101, 102, 4294967294],
    groups: [4, 24, 65533],
    nsPid: [31677, 14, 3],
    vmLocked: 12 * 1024,
    sigPnd: 0x800n,
    shdPnd: 1n << 63n,
    sigBlk: 0x8000000000000800n,
    sigIgn: 0x206n,
    sigCgt: 0x100000000n,
    capInh: 1n,
    capPrm: 0x1fffeffffffn,
    capEff: 0x1fffeffffffn,
    capBnd: 0x1fffeffffffn,
    capAmb: 2n,
    noNewPrivs: true,
    seccomp: 2,
    seccompFilters: 3,
    speculationStoreBypass: "thread vulnerable",
    x86ThreadFeatures: ["shstk", "wrss"],
  });
});

Deno.test("lines that a zombie or Linux 5.4 lacks are undefined", () => {
  const status = parseStatus(TEXT.replaceAll(ONLY_LATER_OR_ALIVE, ""));
  assertEquals(status.umask, undefined);
  assertEquals(status.vmLocked, undefined);
  assertEquals(status.seccompFilters, undefined);
  assertEquals(status.x86ThreadFeatures, undefined);
  assertEquals(status.seccomp, 2);
});

Deno.test("how much is locked can be asked alone", () => {
  assertEquals(parseVmLocked(TEXT), 12 * 1024);
  assertEquals(
    parseVmLocked(TEXT.replaceAll(ONLY_LATER_OR_ALIVE, "")),
    undefined,
  );
  assertThrows(() => parseVmLocked(TEXT.replaceAll("kB", "MB")), CkptError);
});

Deno.test("the name is unescaped and keeps its white space", () => {
  const named = (name: string) =>
    parseStatus(TEXT.replace("a) R 1 (b", () => name)).name;
  assertEquals(named(String.raw`x\ny\\z`), "x\ny\\z");
  assertEquals(named("\t a: b "), "\t a: b ");
  assertEquals(named(""), "");
});

Deno.test("a process without groups has none", () => {
  assertEquals(
    parseStatus(TEXT.replace("4 24 65533 ", " ")).groups,
    [],
  );
});

Deno.test("a missing or malformed line is an error that names it", () => {
  const cases: [string, string, string][] = [
    ["Tgid:\t31675\n", "", "there is no Tgid"],
    ["SigCgt:\t0000000100000000\n", "", "there is no SigCgt"],
    ["Tgid:", "Tgid", "a colon"],
    ["1000\t1001\t1002\t1003", "1000\t1001\t1002", "four ids"],
    ["1000\t1001\t1002\t1003", "1000\t1001\t1002\t1003\t4", "four ids"],
    ["CapEff:\t", "CapEff:\t0", "hexadecimal"],
    ["NoNewPrivs:\t1", "NoNewPrivs:\t2", "0 or 1"],
    ["12 kB\nVmRSS", "12 MB\nVmRSS", "kB"],
    ["0027", "0028", "octal"],
    ["4 24 65533", "4 -24 65533", "decimal"],
  ];
  for (const [from, to, why] of cases) {
    const text = TEXT.replace(from, to);
    const error = assertThrows(() => parseStatus(text, "st"), CkptError);
    assertStringIncludes(error.reasons[0].why, why);
    assertStringIncludes(error.reasons[0].object, "st, line ");
  }
});

Deno.test("damaged status either parses or gives a CkptError", () => {
  assertParsesOrRejects(parseStatus, [
    TEXT,
    TEXT.replaceAll(ONLY_LATER_OR_ALIVE, ""),
  ]);
});
