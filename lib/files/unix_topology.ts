/**
 * How the Unix sockets of an image belong together: pairs, connections that a
 * socket of the image has accepted or has still to accept, and datagram sockets
 * that send to another.
 */
import type { UnixSocketImage } from "./socket_images.ts";
import { SOCK } from "./socket_kind.ts";
import { equalNames, STATE } from "./unix_socket.ts";

export class UnixTopology<S extends UnixSocketImage = UnixSocketImage> {
  readonly #byIno: ReadonlyMap<number, S>;
  readonly #listeners: readonly S[];

  constructor(readonly sockets: readonly S[]) {
    this.#byIno = new Map(sockets.map((one) => [one.entry.ino, one]));
    this.#listeners = sockets.filter(isListening);
  }

  /** Where it sends to, or waits to be accepted; undefined: nowhere (more). */
  peer({ entry: { peer } }: S): S | undefined {
    return peer === 0 ? undefined : this.#byIno.get(peer);
  }

  /** The other end of a pair; undefined where the peer has another peer. */
  partner(socket: S): S | undefined {
    const peer = this.peer(socket);
    return peer !== undefined && peer !== socket &&
        peer.entry.peer === socket.entry.ino
      ? peer
      : undefined;
  }

  /** Had a peer, which has closed. */
  isOrphan({ entry: { state, peer, type }, extension }: S): boolean {
    if (type === SOCK.DGRAM) return extension.lost_peer ?? false;
    return state === STATE.ESTABLISHED && peer === 0;
  }

  /** The one that accepted it, by its name. */
  listener({ entry: { name, type } }: S): S | undefined {
    return this.#listeners.find(({ entry }) =>
      entry.type === type && equalNames(entry.name, name)
    );
  }

  /** Has its name from the one that accepted it; nothing is bound to it. */
  isAccepted(socket: S): boolean {
    const { name, type } = socket.entry;
    if (name.length === 0 || type === SOCK.DGRAM) return false;
    const partner = this.partner(socket);
    if (partner === undefined) return this.isOrphan(socket);
    return partner.entry.name.length === 0 ||
      this.listener(partner) === undefined;
  }

  /** Those that wait until this one accepts them, the first one first. */
  pending(listener: S): S[] {
    const { pending } = listener.extension;
    const rank = ({ entry: { ino } }: S) => {
      const at = pending.indexOf(ino);
      return at === -1 ? pending.length : at;
    };
    return this.sockets.filter((one) =>
      one !== listener && this.peer(one) === listener && isListening(listener)
    ).sort((a, b) => rank(a) - rank(b));
  }

  /** Those that have to be made together, by one process. */
  groups(): S[][] {
    const groups = new Map<S, S[]>(this.sockets.map((one) => [one, [one]]));
    const join = (a: S, b: S) => {
      const [into, from] = [groups.get(a)!, groups.get(b)!];
      if (into === from) return;
      for (const one of from) groups.set(one, into);
      into.push(...from);
    };
    const byName = new Map<string, S>();
    for (const socket of this.sockets) {
      const peer = this.peer(socket);
      if (peer !== undefined) join(socket, peer);
      const key = socket.entry.name.join(" ");
      const other = byName.get(key);
      if (key === "") continue;
      if (other === undefined) byName.set(key, socket);
      else join(other, socket);
    }
    for (const socket of this.sockets) {
      for (const { name } of socket.packets) {
        const sender = name && byName.get(name.join(" "));
        if (sender !== undefined) join(socket, sender);
      }
    }
    return [...new Set(groups.values())];
  }
}

export function isListening({ entry }: UnixSocketImage): boolean {
  return entry.state === STATE.LISTEN;
}
