/**
 * The keys with which TCP signs its packets (RFC 2385), as routers do: of each
 * socket those that it was given for its peers. No call on the socket tells of
 * them (NETLINK_SOCK_DIAG, linux/inet_diag.h, does).
 */
import { SyscallError } from "../ffi/syscall.ts";
import type { ckpt_socket_option } from "../image/schema.gen.ts";
import { askSocketDiag, readAttributes } from "./sock_diag.ts";
import { AF_INET, AF_INET6, IPPROTO_TCP } from "./socket_kind.ts";

/** The options that set them, by the inodes of the sockets. */
export type Md5Keys = ReadonlyMap<number, readonly ckpt_socket_option[]>;

/** struct inet_diag_req_v2 and inet_diag_msg. */
const REQUEST = 56;
const ANSWER = { family: 0, inode: 68, length: 72 } as const;
const ALL_STATES = 0xffffffff;
/** INET_DIAG_INFO: the keys come only with that. */
const SHOW_INFO = 2;
const INET_DIAG_MD5SIG = 18;
/** struct tcp_diag_md5sig */
const KEY = { prefix: 1, length: 2, address: 4, key: 20, bytes: 100 } as const;
/** struct tcp_md5sig */
const SET = { flags: 128, prefix: 129, length: 130, key: 136, bytes: 216 };
const TCP_MD5SIG_EXT = 32;
const TCP_MD5SIG_FLAG_PREFIX = 1;

/** Of all sockets in ckpt's network namespace. */
export function readMd5Keys(): Md5Keys {
  const keys = new Map<number, readonly ckpt_socket_option[]>();
  for (const family of [AF_INET, AF_INET6]) {
    const request = new Uint8Array(REQUEST);
    request.set([family, IPPROTO_TCP, SHOW_INFO]);
    new DataView(request.buffer).setUint32(4, ALL_STATES, true);
    try {
      for (const message of askSocketDiag(request)) addKeys(message, keys);
    } catch (error) {
      // A kernel that does not tell of TCP, or has no IPv6.
      if (!(error instanceof SyscallError)) throw error;
    }
  }
  return keys;
}

/** @param message struct inet_diag_msg and attributes */
export function addKeys(
  message: Uint8Array<ArrayBuffer>,
  to: Map<number, readonly ckpt_socket_option[]>,
): void {
  const value = readAttributes(message, ANSWER.length).get(INET_DIAG_MD5SIG);
  if (value === undefined) return;
  const options: ckpt_socket_option[] = [];
  for (let at = 0; at + KEY.bytes <= value.length; at += KEY.bytes) {
    const key = value.subarray(at, at + KEY.bytes);
    options.push(optionFor(message[ANSWER.family], key));
  }
  const ino = new DataView(message.buffer).getUint32(ANSWER.inode, true);
  if (options.length > 0) to.set(ino, options);
}

function optionFor(family: number, key: Uint8Array): ckpt_socket_option {
  const value = new Uint8Array(SET.bytes);
  value[0] = family;
  const address = key.subarray(KEY.address, KEY.key);
  if (family === AF_INET) value.set(address.subarray(0, 4), 4);
  else if (key[0] === AF_INET6) value.set(address, 8);
  else value.set([0xff, 0xff, ...address.subarray(0, 4)], 18);
  value[SET.flags] = TCP_MD5SIG_FLAG_PREFIX;
  value[SET.prefix] = key[KEY.prefix];
  value.set(key.subarray(KEY.length, KEY.address), SET.length);
  value.set(key.subarray(KEY.key), SET.key);
  return { level: IPPROTO_TCP, name: TCP_MD5SIG_EXT, value };
}
