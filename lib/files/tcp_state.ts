/** The states of TCP (RFC 9293, 3.3.2), and which of them are a connection. */
import type { inet_sk_entry } from "../image/schema.gen.ts";
import { IPPROTO_TCP } from "./socket_kind.ts";

/** enum in include/net/tcp_states.h. */
export const TCP_STATE = {
  ESTABLISHED: 1,
  SYN_SENT: 2,
  FIN_WAIT1: 4,
  FIN_WAIT2: 5,
  CLOSE: 7,
  CLOSE_WAIT: 8,
  LAST_ACK: 9,
  LISTEN: 10,
  CLOSING: 11,
} as const;

const { ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING } =
  TCP_STATE;
const CONNECTED: ReadonlySet<number> = new Set([
  ...[ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING],
]);
/** States in which the program has shut its direction: a FIN is queued. */
const FIN_QUEUED: ReadonlySet<number> = new Set([FIN_WAIT1, LAST_ACK, CLOSING]);
const FIN_RECEIVED: ReadonlySet<number> = new Set([
  ...[CLOSE_WAIT, LAST_ACK, CLOSING],
]);

export const RCV_SHUTDOWN = 1;
export const SEND_SHUTDOWN = 2;

/** Whether a socket of TCP in this state has a peer. */
export function isConnected(state: number): boolean {
  return CONNECTED.has(state);
}

export function isConnection(
  { proto, state }: Pick<inet_sk_entry, "proto" | "state">,
): boolean {
  return proto === IPPROTO_TCP && isConnected(state);
}

/** Whether a FIN of ours waits to be acknowledged. */
export function hasQueuedFin(state: number): boolean {
  return FIN_QUEUED.has(state);
}

/** Whether our FIN has a sequence number, though nobody may have seen it. */
export function hasSentFin(state: number): boolean {
  return hasQueuedFin(state) || state === FIN_WAIT2;
}

export function hasReceivedFin(state: number): boolean {
  return FIN_RECEIVED.has(state);
}
