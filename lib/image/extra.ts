/** What follows an entry in some files: queued data, messages, semaphores. */

import type { ExtraKind, SysvMessage, TcpQueues } from "./kinds.ts";
import { LIMITS } from "./limits.ts";
import {
  decodeMessage,
  encodeMessage,
  FieldError,
  type MessageName,
  messageType,
} from "./message.ts";
import type { Reader, Writer } from "./protobuf.ts";
import type {
  bpfmap_data_entry,
  ipc_msg,
  ipc_msg_entry,
  ipc_sem_entry,
  ipc_shm_entry,
  pipe_data_entry,
  sk_packet_entry,
  tcp_stream_entry,
} from "./schema.gen.ts";

/** How many bytes follow, and the fields that say so. */
function byteCount(message: MessageName, entry: unknown): [number, string] {
  switch (message) {
    case "pipe_data_entry":
      return [(entry as pipe_data_entry).bytes, "bytes"];
    case "sk_packet_entry":
      return [(entry as sk_packet_entry).length, "length"];
    default: {
      const { keys_bytes, values_bytes } = entry as bpfmap_data_entry;
      return [keys_bytes + values_bytes, "keys_bytes and values_bytes"];
    }
  }
}

/**
 * Reads what follows an entry into its property `extra`.
 * @throws FieldError
 */
export function decodeExtra(
  reader: Reader,
  kind: ExtraKind,
  message: MessageName,
  entry: unknown,
): void {
  const holder = entry as { extra?: unknown };
  switch (kind) {
    case "bytes":
      holder.extra = take(reader, ...byteCount(message, entry));
      break;
    case "queues": {
      const { inq_len, outq_len } = entry as tcp_stream_entry;
      const inq = take(reader, inq_len, "inq_len");
      holder.extra = { inq, outq: take(reader, outq_len, "outq_len") };
      break;
    }
    case "segment": {
      const { in_pagemaps, size } = entry as ipc_shm_entry;
      if (in_pagemaps) break;
      holder.extra = take(reader, Number(size), "size");
      take(reader, padding(Number(size), 4), "size");
      break;
    }
    case "messages":
      holder.extra = decodeMessages(reader, (entry as ipc_msg_entry).qnum);
      break;
    case "semaphores": {
      const { nsems } = entry as ipc_sem_entry;
      const bytes = take(reader, 2 * nsems, "nsems");
      take(reader, padding(2 * nsems, 8), "nsems");
      holder.extra = new Uint16Array(bytes.buffer, bytes.byteOffset, nsems);
    }
  }
}

function decodeMessages(reader: Reader, count: number): SysvMessage[] {
  const list: SysvMessage[] = [];
  for (let i = 0; i < count; i++) {
    if (reader.len - reader.pos < 4) {
      throw new FieldError(
        "qnum",
        `says ${count}, but message ${i} is missing`,
      );
    }
    const size = reader.fixed32();
    const end = reader.pos + size;
    if (end > reader.len) {
      throw new FieldError("qnum", `message ${i} goes beyond the file's end`);
    }
    const { mtype, msize } = decodeMessage(
      reader,
      end,
      messageType("ipc_msg"),
    ) as ipc_msg;
    const data = take(reader, msize, "msize");
    take(reader, padding(msize, 8), "msize");
    list.push({ mtype, data });
  }
  return list;
}

function padding(length: number, unit: number): number {
  return (unit - length % unit) % unit;
}

/** A copy of the next bytes, so that it is aligned and keeps no more alive. */
function take(reader: Reader, length: number, field: string): Uint8Array {
  if (length > LIMITS.extra_bytes) {
    throw new FieldError(field, `${length} is more than ${LIMITS.extra_bytes}`);
  }
  const left = reader.len - reader.pos;
  if (length > left) {
    throw new FieldError(
      field,
      `says that ${length} bytes follow, but only ${left} are left`,
    );
  }
  const bytes = reader.buf.slice(reader.pos, reader.pos + length);
  reader.pos += length;
  return bytes;
}

/**
 * Appends what follows an entry.
 * @throws FieldError when its length is not what the entry says
 */
export function encodeExtra(
  writer: Writer,
  kind: ExtraKind,
  message: MessageName,
  entry: unknown,
): void {
  const { extra } = entry as { extra?: unknown };
  switch (kind) {
    case "bytes":
      put(writer, extra, ...byteCount(message, entry));
      break;
    case "queues": {
      const { inq_len, outq_len } = entry as tcp_stream_entry;
      const queues = extra as TcpQueues | undefined;
      put(writer, queues?.inq, inq_len, "inq_len");
      put(writer, queues?.outq, outq_len, "outq_len");
      break;
    }
    case "segment": {
      const { in_pagemaps, size } = entry as ipc_shm_entry;
      if (in_pagemaps) break;
      put(writer, extra, Number(size), "size");
      pad(writer, Number(size), 4);
      break;
    }
    case "messages":
      encodeMessages(writer, extra, (entry as ipc_msg_entry).qnum);
      break;
    case "semaphores": {
      const { nsems } = entry as ipc_sem_entry;
      const values = extra instanceof Uint16Array
        ? new Uint8Array(extra.buffer, extra.byteOffset, extra.byteLength)
        : undefined;
      put(writer, values, 2 * nsems, "nsems");
      pad(writer, 2 * nsems, 8);
    }
  }
}

function encodeMessages(writer: Writer, extra: unknown, count: number): void {
  const list = Array.isArray(extra) ? extra as SysvMessage[] : [];
  if (list.length !== count) {
    throw new FieldError("qnum", `is ${count}, but there are ${list.length}`);
  }
  for (const { mtype, data } of list) {
    const start = writer.pos;
    writer.fixed32(0);
    const head = { mtype, msize: data.length };
    encodeMessage(writer, messageType("ipc_msg"), head);
    new DataView(writer.buf.buffer, writer.buf.byteOffset).setUint32(
      start,
      writer.pos - start - 4,
      true,
    );
    writer.raw(data);
    pad(writer, data.length, 8);
  }
}

function put(
  writer: Writer,
  bytes: unknown,
  length: number,
  field: string,
): void {
  const given = bytes instanceof Uint8Array ? bytes.length : 0;
  if (given !== length) {
    throw new FieldError(field, `is ${length}, but ${given} bytes are given`);
  }
  if (given > 0) writer.raw(bytes as Uint8Array);
}

function pad(writer: Writer, length: number, unit: number): void {
  writer.raw(new Uint8Array(padding(length, unit)));
}
