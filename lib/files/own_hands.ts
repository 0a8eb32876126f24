/** What ckpt does itself with sockets that processes have made. */
import { CkptError, EXIT } from "../error.ts";
import { describeErrno } from "../ffi/errno.ts";
import { runOwnProgram } from "../ffi/own_program.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import { Program } from "../ffi/program.ts";
import { close } from "../ffi/syscall.ts";
import { type InetSocketImage, socketName } from "./socket_images.ts";

/** A socket, and the process that has made it. */
export interface UnfinishedSocket {
  readonly pid: number;
  /** Its number there. */
  readonly fd: number;
  readonly image: InetSocketImage;
}

/**
 * @param plan writes what is to be done; `own` is ckpt's number for the socket
 * @throws CkptError
 */
export function actOn(
  { pid, fd, image }: UnfinishedSocket,
  plan: (program: Program, own: number) => void,
): void {
  const own = getDescriptorOf(pid, fd);
  try {
    const program = new Program();
    plan(program, own);
    const { failure } = runOwnProgram(program);
    if (failure === undefined) return;
    throw new CkptError(EXIT.failed, failure.purpose, [{
      object: `descriptor ${fd} (${socketName(image)}) of task ${pid}`,
      why: describeErrno(failure.errno),
    }]);
  } finally {
    close(own);
  }
}
