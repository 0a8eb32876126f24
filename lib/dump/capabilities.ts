/** What ckpt must be allowed to do before it can dump anything. */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { hasCapability } from "../proc/read.ts";

/** Without these nothing can be dumped; told before anything is touched. */
export function requireCapabilities(action: string): void {
  const reasons = missingCapabilities();
  if (reasons.length > 0) {
    throw new CkptError(EXIT.permission, action, reasons);
  }
}

export function missingCapabilities(): Reason[] {
  const reasons: Reason[] = [];
  for (
    const [name, purpose] of [
      ["CAP_SYS_PTRACE", "to stop and read tasks"],
      ["CAP_SYS_ADMIN", "to read seccomp filters and mapped files"],
    ] as const
  ) {
    if (!hasCapability(name)) {
      reasons.push({
        object: name,
        why: `ckpt does not have this capability, which it needs ${purpose}`,
        remedy: "run ckpt as root",
      });
    }
  }
  return reasons;
}
