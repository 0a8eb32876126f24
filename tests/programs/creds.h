/* All of the credentials of the calling thread as one text, for comparing. */
#ifndef CREDS_H
#define CREDS_H
#include "check.h"
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

CHECK_UNUSED static void creds_read(char *to, size_t size) {
  uid_t r, e, s;
  gid_t gr, ge, gs, groups[64];
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  memset(data, 0, sizeof(data));
  syscall(SYS_getresuid, &r, &e, &s);
  syscall(SYS_getresgid, &gr, &ge, &gs);
  syscall(SYS_capget, &header, data);
  int n = snprintf(to, size, "uid %u %u %u %d gid %u %u %u %d cap e %x%08x p %x%08x i %x%08x securebits %#x no_new_privs %d groups", r,
                   e, s, (int)syscall(SYS_setfsuid, -1), gr, ge, gs, (int)syscall(SYS_setfsgid, -1), data[1].effective,
                   data[0].effective, data[1].permitted, data[0].permitted, data[1].inheritable, data[0].inheritable,
                   prctl(PR_GET_SECUREBITS), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  int count = (int)syscall(SYS_getgroups, 64, groups);
  for (int i = 0; i < count; i++) n += snprintf(to + n, size - (size_t)n, " %u", groups[i]);
  n += snprintf(to + n, size - (size_t)n, " bounding");
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0 && cap < 64; cap++)
    n += snprintf(to + n, size - (size_t)n, "%d", prctl(PR_CAPBSET_READ, cap));
  n += snprintf(to + n, size - (size_t)n, " ambient ");
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0 && cap < 64; cap++)
    n += snprintf(to + n, size - (size_t)n, "%d", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0));
}

CHECK_UNUSED static void creds_set_caps(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {
      {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
      {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
  };
  MUST(syscall(SYS_capset, &header, data));
}
#define CAP(name) (1ull << (name))
#endif
