import { assertEquals } from "@std/assert";
import { hasRules } from "./network_images.ts";

const LOCK = `table inet CRIU-8b57eed0-964d-49bb-ae {
\tchain output {
\t\ttype filter hook output priority filter; policy drop;
\t\tmeta mark 0x0000c114 accept
\t}
}
`;

Deno.test("what CRIU blocks the network with is none of the program's rules", () => {
  assertEquals(hasRules(LOCK), false);
  assertEquals(hasRules(""), false);
  assertEquals(
    hasRules(
      "*filter\n:INPUT ACCEPT [0:0]\n:CRIU - [0:0]\n-A INPUT -j CRIU\nCOMMIT\n",
    ),
    false,
  );
});

Deno.test("rules of the program are seen", () => {
  assertEquals(hasRules(`${LOCK}table ip nat {\n}\n`), true);
  assertEquals(hasRules("*filter\n-A INPUT -p tcp -j DROP\nCOMMIT\n"), true);
});
