import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { FrozenProcess } from "./frozen_process.ts";
import { hostXsaveLayout, readThreads, ThreadState } from "./thread_state.ts";

Deno.test("the fields are where the library puts them", () => {
  const LENGTH = 496 + 32;
  const buffer = new ArrayBuffer(16 + LENGTH);
  const view = new DataView(buffer, 16);
  for (let i = 0; i < 480 / 4; i++) view.setUint32(i * 4, i, true);
  view.setInt32(480, 77, true);
  view.setUint32(484, 8, true);
  view.setBigUint64(488, 24n, true);
  view.setUint8(496 + 23, 5);
  const state = new ThreadState(buffer, 16, LENGTH);
  const word = (at: number) => view.getBigUint64(at, true);

  assertEquals(state.tid, 77);
  assertEquals(state.registers.length, 27);
  assertEquals(state.registers[26], word(26 * 8));
  assertEquals(state.signalMask, word(216));
  assertEquals(state.robustList, word(224));
  assertEquals(state.rseq, {
    pointer: word(240),
    size: 62,
    signature: 63,
    flags: 64,
  });
  assertEquals(state.dispatch, {
    mode: word(264),
    selector: word(272),
    offset: word(280),
    length: word(288),
  });
  assertEquals(state.scheduling, {
    policy: 75,
    flags: word(304),
    nice: 78,
    priority: 79,
    runtime: word(320),
    deadline: word(328),
    period: word(336),
    utilMin: 86,
    utilMax: 87,
  });
  assertEquals(state.affinity, Uint8Array.of(88, 0, 0, 0, 89, 0, 0, 0));
  assertEquals(state.xsave.length, 24);
  assertEquals(state.xsave[23], 5);
});

Deno.test("the state of a stopped program is read", async () => {
  const child = new Deno.Command("nice", { args: ["-n", "5", "sleep", "99"] })
    .spawn();
  try {
    const command = `/proc/${child.pid}/comm`;
    while (Deno.readTextFileSync(command) !== "sleep\n") {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    using frozen = FrozenProcess.freeze(child.pid, 0);
    const [state, ...more] = readThreads(frozen.tids);
    assertEquals(more, []);
    assertEquals(state.tid, child.pid);
    assertEquals(state.scheduling.nice, 5);
    assertEquals(state.registers[17], 0x33n);
    assertEquals(state.xsave.length, hostXsaveLayout().size);
    assertEquals(state.xsave.byteOffset % 8, 0);
    assert(state.affinity.some((byte) => byte !== 0));
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
});

Deno.test("a thread that is not traced is named in the error", () => {
  const error = assertThrows(
    () => readThreads(Int32Array.of(Deno.pid)),
    CkptError,
  );
  assertEquals(error.exit, EXIT.gone);
  assertEquals(error.reasons[0].object, `task ${Deno.pid}`);
});
