/** Puts what nobody has read into the queues of Unix sockets. */
import type { Data } from "../ffi/program.ts";
import type { ckpt_credentials_entry } from "../image/schema.gen.ts";
import { OptionSetter } from "./option_setter.ts";
import {
  type PacketImage,
  socketName,
  type UnixSocketImage,
} from "./socket_images.ts";
import { SOCK } from "./socket_kind.ts";
import { SO, SOL_SOCKET } from "./sockopt.ts";
import type { TableProgram } from "./table_program.ts";

/** The process that sends. */
export interface PacketSender {
  readonly pid: number;
  /** Whether a process exists, so that a packet may be called its. */
  readonly exists: (pid: number) => boolean;
}

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
/** Room for all that is queued (sk_setsockopt takes no more). */
const ROOM = 1 << 29;

export class UnixQueueFiller {
  readonly #table: TableProgram;
  readonly #owner: PacketSender;
  /** Descriptors whose buffers were changed, so that all fits in. */
  readonly enlarged = new Set<number>();
  /** The number of a file that is in flight, by its id; when all are there. */
  placeOf = (_id: number): number => {
    throw new Error("a file in flight is sent before it is there");
  };

  constructor(table: TableProgram, owner: PacketSender) {
    this.#table = table;
    this.#owner = owner;
  }

  fill(one: UnixSocketImage, sender: number): void {
    for (const packet of one.packets) this.send(sender, packet, one);
  }

  send(
    sender: number,
    { bytes, sender: credentials, rights }: PacketImage,
    one: UnixSocketImage,
    [address, length]: readonly [Data | number, number] = [0, 0],
  ): void {
    const { program } = this.#table;
    const name = socketName(one);
    this.enlarged.add(sender);
    new OptionSetter(program, sender, name)
      .int(SOL_SOCKET, SO.SNDBUFFORCE, ROOM);
    const control = this.#control(credentials, rights);
    if (one.entry.type === SOCK.STREAM && control.length === 0) {
      this.write(sender, bytes, name);
      return;
    }
    const content = program.bytes(bytes);
    const message = program.words([
      address,
      length,
      program.words([content, bytes.length]),
      1,
      control.length === 0 ? 0 : program.words(control),
      8 * control.length,
      0,
    ]);
    program.call(
      "sendmsg",
      [sender, message, MSG_DONTWAIT | MSG_NOSIGNAL],
      () => `filling ${name}`,
    );
  }

  /** Control messages (cmsg(3)): length, level and type, content, padded. */
  #control(
    credentials: ckpt_credentials_entry | undefined,
    rights: readonly number[],
  ): bigint[] {
    const words: bigint[] = [];
    const add = (type: number, content: readonly number[]) => {
      words.push(BigInt(16 + 4 * content.length));
      words.push(BigInt(SOL_SOCKET) | BigInt(type) << 32n);
      for (let i = 0; i < content.length; i += 2) {
        words.push(BigInt(content[i]) | BigInt(content[i + 1] ?? 0) << 32n);
      }
    };
    if (credentials !== undefined) {
      const { pid, uid, gid } = credentials;
      // The kernel takes no pid that nobody has.
      const known = this.#owner.exists(pid) ? pid : this.#owner.pid;
      add(SCM_CREDENTIALS, [known, uid, gid]);
    }
    if (rights.length > 0) add(SCM_RIGHTS, rights.map(this.placeOf));
    return words;
  }

  write(fd: number, bytes: Uint8Array, name: string): void {
    const { program } = this.#table;
    const content = program.bytes(bytes);
    program.call(
      "write",
      [fd, content, bytes.length],
      () => `filling ${name}`,
      { whole: true },
    );
  }
}
