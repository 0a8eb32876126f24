/**
 * Where the native library is, in each of the three ways that ckpt runs: from
 * its sources, as Deno's own binary with a payload, compiled by `deno compile`.
 */

/** What the stub of the packed binary (tools/pack/stub.c) tells us. */
interface PackedStart {
  /** Descriptor of a memfd that holds libckpt.so. */
  library: number;
  /** Soft RLIMIT_NOFILE from before Deno raised it. */
  nofile: bigint;
}

/** Undefined when ckpt was not started by the stub. */
export function packedStart(): PackedStart | undefined {
  const { ckptStart } = globalThis as {
    ckptStart?: Record<keyof PackedStart, string>;
  };
  return ckptStart &&
    { library: Number(ckptStart.library), nofile: BigInt(ckptStart.nofile) };
}

/**
 * The path that Deno.dlopen opens to load libckpt.so. Outside development it
 * leads to a memfd, so nothing is unpacked to a disk. Call it once: each call
 * in the compiled form makes another memfd.
 *
 * @throws Error when no memfd can be made
 */
export function libraryPath(): string {
  const packed = packedStart();
  if (packed !== undefined) return `/proc/self/fd/${packed.library}`;
  if (Deno.build.standalone) {
    // tools/build.ts puts the library beside the bundle.
    return memfdOf(
      "libckpt.so",
      Deno.readFileSync(new URL("libckpt.so", Deno.mainModule)),
    );
  }
  return `${import.meta.dirname}/../../dist/libckpt.so`;
}

/**
 * The soft RLIMIT_NOFILE ckpt was started with (RLIM_INFINITY is 2^64 - 1), to
 * give to the programs that ckpt starts: Deno raises its own to the hard
 * limit. Undefined where nothing ran before Deno to note it.
 */
export function originalOpenFileLimit(): bigint | undefined {
  return packedStart()?.nofile;
}

/**
 * A path to a new close-on-exec memfd that holds `bytes`; it stays open for
 * the life of the process.
 *
 * @throws Error when the kernel makes none
 */
export function memfdOf(name: string, bytes: Uint8Array): string {
  const libc = Deno.dlopen("libc.so.6", {
    memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  });
  const MFD_CLOEXEC = 1;
  const terminated = new TextEncoder().encode(name + "\0");
  const fd = libc.symbols.memfd_create(terminated, MFD_CLOEXEC);
  libc.close();
  if (fd < 0) throw new Error(`the kernel made no memfd for ${name}`);
  const path = `/proc/self/fd/${fd}`;
  Deno.writeFileSync(path, bytes);
  return path;
}
