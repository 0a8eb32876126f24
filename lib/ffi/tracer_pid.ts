/** Which process traces tasks for ckpt: ckpt itself, or a {@link LastingTracer}. */

let pid = Deno.pid;

export function tracerPid(): number {
  return pid;
}

/** For {@link LastingTracer} alone. */
export function traceAs(tracer: number): void {
  pid = tracer;
}
