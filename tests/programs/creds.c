/* Credentials of a process that gave most of them up: ids all different, groups, capability sets, securebits. */
#include "creds.h"

int main(int argc, char **argv) {
  check_start(argc, argv);
  /* the set-id calls of the C library are for all threads; the capabilities go last */
  gid_t groups[] = {7, 1001, 70000, 4000000000u};
  MUST(syscall(SYS_setgroups, 4, groups));
  for (int cap = 0; cap < 41; cap++)
    if (cap % 5 == 3 && cap != CAP_SETPCAP) MUST(prctl(PR_CAPBSET_DROP, cap));
  MUST(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT));
  MUST(syscall(SYS_setresgid, 2001, 2002, 2003));
  MUST(syscall(SYS_setfsgid, 2004));
  MUST(syscall(SYS_setresuid, 1001, 1002, 1003));
  MUST(syscall(SYS_setfsuid, 1004));
  creds_set_caps(CAP(CAP_CHOWN) | CAP(CAP_SYS_ADMIN), CAP(CAP_CHOWN) | CAP(CAP_SYS_ADMIN) | CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_KILL),
                 CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_CHOWN));
  MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
  char before[2048], after[2048];
  creds_read(before, sizeof(before));
  dprintf(2, "%s\n", before);

  check_ready();

  creds_read(after, sizeof(after));
  CHECK_STRING("credentials", before, after);
  /* what was given up stays out of reach */
  CHECK("a lost user id cannot be taken back", syscall(SYS_setresuid, 0, 0, 0) == -1);
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct all[2] = {{~0u, ~0u, 0}, {~0u, ~0u, 0}};
  CHECK("lost capabilities cannot be taken back", syscall(SYS_capset, &header, all) == -1);
  CHECK("a locked securebit cannot be cleared", prctl(PR_SET_SECUREBITS, 0) == -1);
  return check_finish();
}
