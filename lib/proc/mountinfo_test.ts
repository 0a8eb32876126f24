import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseMountInfo } from "./mountinfo.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const TEXT = String.raw`
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resuid=65534
63 43 0:39 / /m/a\040b rw,relatime shared:1 - tmpfs  rw
64 63 0:40 / /m/a\040b/x\012y\011z\134 rw,relatime - tmpfs no\040ne rw
65 43 0:39 /bb//deleted /m/s#h rw,nosuid,relatime shared:2 master:1 - tmpfs  rw
66 43 0:42 /- /- rw master:12 propagate_from:3 later:7 - fuse.sshfs a@b:/c rw,user_id=0
68 43 0:41 / /m/u rw,relatime unbindable - overlay ov rw,lowerdir=m/l\134\0541,upperdir=m/up,workdir=m/w,uuid=on
69 43 0:4 net:[4026531833] /m/nsf rw - nsfs nsfs rw
70 43 0:50 / /m/old rw - odd none rw,text=with a space
`.slice(1);

Deno.test("mountinfo gives every field of every mount", () => {
  const mounts = parseMountInfo(TEXT);
  assertEquals(mounts.length, 8);
  assertEquals(mounts[0], {
    mountId: 27,
    parentId: 1,
    major: 254,
    minor: 0,
    root: "/",
    mountPoint: "/",
    mountOptions: ["rw", "relatime"],
    shared: undefined,
    master: undefined,
    propagateFrom: undefined,
    unbindable: false,
    otherTags: [],
    type: "ext4",
    source: "/dev/vda",
    superOptions: ["rw", "discard", "resuid=65534"],
  });
});

Deno.test("an empty source stays empty", () => {
  const mount = parseMountInfo(TEXT)[1];
  assertEquals(
    [mount.type, mount.source, mount.superOptions],
    ["tmpfs", "", ["rw"]],
  );
});

Deno.test("escapes are undone in paths, source and options", () => {
  const mounts = parseMountInfo(TEXT);
  assertEquals(mounts[1].mountPoint, "/m/a b");
  assertEquals(mounts[2].mountPoint, "/m/a b/x\ny\tz\\");
  assertEquals(mounts[2].source, "no ne");
  assertEquals(mounts[5].superOptions[1], "lowerdir=m/l\\,1");
  assertEquals(mounts[5].superOptions.length, 5);
});

Deno.test("tags are told apart, unknown ones are kept", () => {
  const mounts = parseMountInfo(TEXT);
  assertEquals([mounts[3].shared, mounts[3].master], [2, 1]);
  assertEquals(mounts[3].root, "/bb//deleted");
  assertEquals(mounts[4].shared, undefined);
  assertEquals([mounts[4].master, mounts[4].propagateFrom], [12, 3]);
  assertEquals(mounts[4].otherTags, ["later:7"]);
  assertEquals([mounts[4].root, mounts[4].type], ["/-", "fuse.sshfs"]);
  assertEquals(mounts[5].unbindable, true);
  assertEquals(mounts[6].root, "net:[4026531833]");
});

Deno.test("spaces in the last field belong to it", () => {
  assertEquals(parseMountInfo(TEXT)[7].superOptions, [
    "rw",
    "text=with a space",
  ]);
});

Deno.test("a malformed line is an error that names it", () => {
  const cases: [string, string][] = [
    ["", "six fields"],
    ["27 1 254:0 / / rw ext4 /dev/vda rw", "six fields"],
    ["27 1 254:0 / / rw - ext4 /dev/vda", "six fields"],
    ["27 1 254:0 / / - ext4 /dev/vda rw", "six fields"],
    ["x 1 254:0 / / rw - ext4 /dev/vda rw", "decimal"],
    ["27 1 254.0 / / rw - ext4 /dev/vda rw", "MAJOR:MINOR"],
    ["27 1 254:0 / / rw shared:x - ext4 /dev/vda rw", "decimal"],
  ];
  for (const [line, why] of cases) {
    const error = assertThrows(
      () => parseMountInfo(`${TEXT}${line}\n`, "m"),
      CkptError,
    );
    assertEquals(error.reasons[0].object, "m, line 9");
    assertStringIncludes(error.reasons[0].why, why);
  }
});

Deno.test("damaged mountinfo either parses or gives a CkptError", () => {
  assertParsesOrRejects(parseMountInfo, [TEXT]);
});
