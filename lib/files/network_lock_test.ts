/** The tables that block connections, by real connections of this host. */
import { assert, assertEquals } from "@std/assert";
import {
  type ConnectionAddress,
  LeftLock,
  lockName,
  NetworkLock,
  removeLock,
} from "./network_lock.ts";

/** A pair of ends, and how its packets look. */
class Pair implements Disposable {
  private constructor(
    readonly client: Deno.TcpConn,
    readonly server: Deno.TcpConn,
    readonly address: ConnectionAddress,
  ) {}

  static async connect(hostname: string): Promise<Pair> {
    using listener = Deno.listen({ hostname, port: 0 });
    const [client, server] = await Promise.all([
      Deno.connect({ hostname, port: listener.addr.port }),
      listener.accept(),
    ]);
    const words = hostname === "::1" ? [0, 0, 0, 0x01000000] : [0x0100007f];
    return new Pair(client, server, {
      local: words,
      remote: words,
      localPort: client.localAddr.port,
      remotePort: listener.addr.port,
    });
  }

  /** Sends a byte; whether it arrives soon. */
  async arrives(milliseconds: number): Promise<boolean> {
    await this.client.write(Uint8Array.of(1));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<boolean>((done) => {
      timer = setTimeout(() => done(false), milliseconds);
    });
    this.reading ??= this.server.read(new Uint8Array(1));
    const arrived = await Promise.race([
      this.reading.then(() => true),
      late,
    ]);
    clearTimeout(timer);
    if (arrived) this.reading = undefined;
    return arrived;
  }

  private reading: Promise<number | null> | undefined;

  async end(): Promise<void> {
    await this.reading;
    this.reading = undefined;
  }

  [Symbol.dispose](): void {
    this.client.close();
    this.server.close();
  }
}

const PATIENCE_MS = 30_000;
/** Over the loopback device it is there at once. */
const BLOCKED_MS = 300;

for (const hostname of ["127.0.0.1", "::1"]) {
  Deno.test(`a connection of ${hostname} is blocked, alone, until it is let go`, async () => {
    using blocked = await Pair.connect(hostname);
    using free = await Pair.connect(hostname);
    using lock = NetworkLock.prepare(crypto.randomUUID());
    assert(await blocked.arrives(PATIENCE_MS), "nothing is blocked yet");
    lock.block([blocked.address]);
    assertEquals(await blocked.arrives(BLOCKED_MS), false);
    assert(await free.arrives(PATIENCE_MS), "another connection");
    lock.unblock();
    await blocked.end();
    assert(await blocked.arrives(PATIENCE_MS), "afterwards");
  });
}

Deno.test("a table that stays is found by its name, also by another ckpt, and removed once", () => {
  const name = lockName(crypto.randomUUID());
  {
    using lock = NetworkLock.prepare(crypto.randomUUID());
    lock.leave(name, []);
  }
  using found = LeftLock.find(name)!;
  assertEquals(removeLock(name), true);
  assertEquals(LeftLock.find(name), undefined);
  assertEquals(found.remove(), false);
  assertEquals(removeLock(name), false);
});

Deno.test("thousands of connections fit into one table", () => {
  using lock = NetworkLock.prepare(crypto.randomUUID());
  lock.block(
    Array.from({ length: 5000 }, (_, i) => ({
      local: [0x0100007f],
      remote: [0x0200007f],
      localPort: 1 + i,
      remotePort: 9,
    })),
  );
});
