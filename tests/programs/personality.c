/* Personality: address space not randomized, and other bits that only change what the kernel reports. */
#include "check.h"
#include <sys/personality.h>
#include <sys/utsname.h>

int main(int argc, char **argv) {
  check_start(argc, argv);
  const unsigned wanted = ADDR_NO_RANDOMIZE | STICKY_TIMEOUTS | UNAME26;
  MUST(personality(wanted));
  unsigned before = (unsigned)personality(~0u);
  struct utsname name;
  uname(&name);
  char release[sizeof(name.release)];
  strcpy(release, name.release);

  check_ready();

  CHECK_EQ("personality", before, (unsigned)personality(~0u));
  uname(&name);
  CHECK_STRING("release that uname reports", release, name.release);
  CHECK("UNAME26 is in effect", strncmp(name.release, "2.6.", 4) == 0);
  return check_finish();
}
