/** Credentials, seccomp, limits and the other properties of a process. */
import { assertEquals } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { restore, Scope } from "./harness.ts";
import { survives } from "./state.ts";

survives("creds", "credentials of a process");
survives("thread_creds", "credentials of single threads");
survives("seccomp_filter", "chains of seccomp filters of single threads");
survives("seccomp_process", "seccomp filters of an unprivileged process");
survives("seccomp_strict", "threads in seccomp strict mode");
survives("prctls", "properties set by prctl");
survives("death_signal", "parent-death signals that would be noticed");
survives("personality", "personality bits");
survives("limits", "resource limits, umask, OOM score and dump filter");
survives("membarrier", "membarrier registrations");

for (const property of ["mce", "memory-merge", "mdwe"]) {
  Deno.test(`prctls_rare: ${property} is kept, or the dump is refused`, async () => {
    await using scope = new Scope();
    const started = await scope.start("prctls_rare", property);
    const images = scope.path("images");
    const dumped = await scope.ckpt(
      "dump",
      "-t",
      `${started.pid}`,
      "-D",
      images,
    );
    if (dumped.code !== EXIT.refused) {
      assertEquals(dumped.code, EXIT.ok, dumped.stderr);
      await started.ended();
      await restore(scope, started, images);
    }
    assertEquals(await started.verify(), "ok");
  });
}
