import { assertEquals } from "@std/assert";
import type { Entry } from "../image/kinds.ts";
import { encodeOptions, firstSequences } from "./make_connections.ts";
import { TCP_STATE } from "./tcp_state.ts";

const stream: Entry<"tcp-stream"> = {
  ...{ inq_len: 10, inq_seq: 1000, outq_len: 20, outq_seq: 5, unsq_len: 0 },
  ...{ opt_mask: 7, snd_wscale: 7, rcv_wscale: 9, timestamp: 5 },
  mss_clamp: 1460,
  extra: { inq: new Uint8Array(10), outq: new Uint8Array(20) },
};

Deno.test("sequence numbers begin before the bytes, and before a FIN", () => {
  const of = (state: number) => {
    const { receive, send } = firstSequences({ state }, stream);
    return [receive, send];
  };
  // 5 - 20 wraps around.
  const [all, withFin] = [0x1_0000_0000 - 15, 0x1_0000_0000 - 16];
  assertEquals(of(TCP_STATE.ESTABLISHED), [990, all]);
  assertEquals(of(TCP_STATE.CLOSE_WAIT), [989, all]);
  assertEquals(of(TCP_STATE.FIN_WAIT1), [990, withFin]);
  assertEquals(of(TCP_STATE.FIN_WAIT2), [990, withFin]);
  assertEquals(of(TCP_STATE.LAST_ACK), [989, withFin]);
  assertEquals(of(TCP_STATE.CLOSING), [989, withFin]);
});

Deno.test("options are those that both ends had agreed on", () => {
  const words = (opt_mask: number) => [
    ...new Uint32Array(
      encodeOptions({ ...stream, opt_mask }).slice().buffer,
    ),
  ];
  assertEquals(words(0), [2, 1460]);
  assertEquals(words(7), [2, 1460, 4, 0, 3, 7 | 9 << 16, 8, 0]);
});
