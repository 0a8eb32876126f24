/* Registrations for membarrier: without them the expedited commands answer EPERM. */
#include "check.h"
#include <linux/membarrier.h>

#ifndef MEMBARRIER_CMD_GET_REGISTRATIONS
#define MEMBARRIER_CMD_GET_REGISTRATIONS (1 << 9)
#endif

static long membarrier(int command) { return syscall(SYS_membarrier, command, 0, 0); }

int main(int argc, char **argv) {
  check_start(argc, argv);
  MUST(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED));
  MUST(membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED));
  int sync_core = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE) == 0;
  long before = membarrier(MEMBARRIER_CMD_GET_REGISTRATIONS);
  if (before < 0) check_note("this kernel does not tell registrations");
  check_ready();
  CHECK_EQ("registrations", before, membarrier(MEMBARRIER_CMD_GET_REGISTRATIONS));
  CHECK_EQ("private expedited barrier", 0, membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
  CHECK_EQ("global expedited barrier", 0, membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED));
  if (sync_core) CHECK_EQ("core-synchronizing barrier", 0, membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE));
#ifdef MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ
  CHECK_EQ("a barrier that was not registered", -1, membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ));
#endif
  return check_finish();
}
