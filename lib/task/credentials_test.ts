import { assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { Program } from "../ffi/program.ts";
import type { creds_entry } from "../image/schema.gen.ts";
import {
  credentialsEntry,
  hasAllRights,
  requireCapabilities,
  restoreCredentials,
  type StartingCredentials,
} from "./credentials.ts";
import { AgentTask } from "./testing/agent_task.ts";

const PR_GET_SECUREBITS = 27;
const CHOWN = 1;
const SETGID = 1 << 6;
const NET_RAW = 1 << 13;

/** Gives a new task the credentials and reads back what it has then. */
function roundTrip(change: (entry: creds_entry) => void): {
  wanted: creds_entry;
  got: creds_entry;
} {
  using task = new AgentTask();
  const before = task.status;
  const start: StartingCredentials = {
    ...before,
    lastCapability: Number(
      Deno.readTextFileSync("/proc/sys/kernel/cap_last_cap"),
    ),
  };
  const wanted = credentialsEntry(before, 0);
  change(wanted);
  requireCapabilities(wanted, start, task.pid);
  const program = new Program();
  restoreCredentials(program, wanted, start);
  const asked = program.call("prctl", [PR_GET_SECUREBITS], "asking");
  const securebits = Number(task.run(program).result(asked));
  return { wanted, got: credentialsEntry(task.status, securebits) };
}

Deno.test("all rights has who has the ids of root and all its capabilities", () => {
  using task = new AgentTask();
  const start = { ...task.status, lastCapability: 40 };
  const allowed = (change: Partial<creds_entry>) =>
    hasAllRights({ ...credentialsEntry(task.status, 0), ...change }, start);
  assertEquals(allowed({}), true);
  assertEquals(allowed({ groups: [7], no_new_privs: 1 }), true);
  assertEquals(allowed({ suid: 1 }), false);
  assertEquals(allowed({ fsgid: 1 }), false);
  assertEquals(allowed({ secbits: 1 }), false);
  assertEquals(allowed({ cap_eff: [0, 0] }), false);
  assertEquals(allowed({ cap_bnd: [0, 0] }), false);
});

Deno.test("credentials of root are restored unchanged", () => {
  const { wanted, got } = roundTrip(() => {});
  assertEquals(got, wanted);
});

Deno.test("four different ids of each kind, and groups, are restored", () => {
  const { wanted, got } = roundTrip((entry) => {
    Object.assign(entry, {
      uid: 1001,
      euid: 1002,
      suid: 1003,
      fsuid: 1004,
      gid: 2001,
      egid: 2002,
      sgid: 2003,
      fsgid: 2004,
      groups: [5, 70000],
    });
  });
  assertEquals(got, wanted);
});

Deno.test("a user without capabilities gets none back", () => {
  const { wanted, got } = roundTrip((entry) => {
    Object.assign(entry, { uid: 7, euid: 7, suid: 7, fsuid: 7 });
    entry.cap_eff = entry.cap_prm = [0, 0];
    entry.no_new_privs = 1;
  });
  assertEquals(got, wanted);
});

Deno.test("a capability that is inheritable but not in the bounding set, and one that is permitted but not effective, are restored", () => {
  const { wanted, got } = roundTrip((entry) => {
    Object.assign(entry, { uid: 7, euid: 7, suid: 7, fsuid: 7 });
    entry.cap_inh = [CHOWN | NET_RAW, 0];
    entry.cap_prm = [CHOWN | SETGID, 0];
    entry.cap_eff = [CHOWN, 0];
    entry.cap_bnd = [SETGID, 1];
    entry.cap_amb = [CHOWN, 0];
  });
  assertEquals(got, wanted);
});

Deno.test("locked securebits that forbid ambient capabilities do not hinder restoring one", () => {
  const { wanted, got } = roundTrip((entry) => {
    entry.cap_inh = [NET_RAW, 0];
    entry.cap_amb = [NET_RAW, 0];
    // NOROOT, NO_SETUID_FIXUP, KEEP_CAPS and NO_CAP_AMBIENT_RAISE; three locks.
    entry.secbits = 0b1101_1111;
    entry.cap_prm = entry.cap_eff = [NET_RAW, 0];
  });
  assertEquals(got, wanted);
});

Deno.test("absent sets of an image are empty sets", () => {
  const { got } = roundTrip((entry) => {
    entry.cap_inh = [];
    entry.cap_prm = [];
    entry.cap_eff = [];
    entry.cap_amb = [];
  });
  assertEquals(got.cap_prm, [0, 0]);
  assertEquals(got.cap_eff, [0, 0]);
});

Deno.test("a capability that ckpt lacks is refused by name", () => {
  const entry = {
    cap_prm: [NET_RAW | CHOWN, 0],
    cap_bnd: [0, 1 << (40 - 32)],
  } as creds_entry;
  const error = assertThrows(
    () =>
      requireCapabilities(entry, {
        groups: [],
        capPrm: BigInt(CHOWN),
        capBnd: 0n,
        lastCapability: 40,
      }, 12),
    CkptError,
  );
  assertEquals(error.exit, EXIT.permission);
  assertEquals(error.reasons.map(({ why }) => why.match(/CAP_\w+/g)), [
    ["CAP_NET_RAW"],
    ["CAP_CHECKPOINT_RESTORE"],
  ]);
});

Deno.test("a capability that the kernel does not know is left out", () => {
  requireCapabilities(
    { cap_prm: [0, 1 << 20], cap_bnd: [0, 1 << 20] } as creds_entry,
    { groups: [], capPrm: 0n, capBnd: 0n, lastCapability: 40 },
    12,
  );
});
