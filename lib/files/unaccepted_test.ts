import { assertEquals } from "@std/assert";
import type { ReadConnection } from "./tcp_connection.ts";
import { TCP_STATE } from "./tcp_state.ts";
import { withoutOverlap } from "./unaccepted.ts";

const ESTABLISHED = 1;

Deno.test("bytes whose acknowledgement is on its way are sent by the client alone", () => {
  const received = Uint8Array.of(1, 2, 3, 4, 5);
  const table: [
    state: number,
    next: number,
    outq_seq: number,
    outq_len: number,
    left: number[],
  ][] = [
    // All is acknowledged; nothing beyond is sent, or something is.
    [ESTABLISHED, 105, 105, 0, [1, 2, 3, 4, 5]],
    [ESTABLISHED, 105, 109, 4, [1, 2, 3, 4, 5]],
    // The client has still two of them, and one more.
    [ESTABLISHED, 105, 106, 3, [1, 2, 3]],
    // The numbers begin anew in between.
    [ESTABLISHED, 1, 2, 3, [1, 2, 3]],
    // The end of file has a number, too.
    [TCP_STATE.FIN_WAIT1, 106, 105, 0, [1, 2, 3, 4, 5]],
  ];
  for (const [state, next, outq_seq, outq_len, left] of table) {
    const stream = { outq_seq, outq_len } as ReadConnection["stream"];
    const found = withoutOverlap({ received, next }, { state, stream });
    assertEquals([...found], left);
  }
  assertEquals(withoutOverlap({ received, next: 105 }, undefined), received);
});
