/* Rarely used properties of a task that programs can see: each must be kept, or the dump refused. */
#include "check.h"
#include <sys/prctl.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

static const struct {
  const char *name;
  int set, get, value;
} cases[] = {
    {"mce", PR_MCE_KILL, PR_MCE_KILL_GET, 0},
    {"memory-merge", PR_SET_MEMORY_MERGE, PR_GET_MEMORY_MERGE, 1},
    {"mdwe", PR_SET_MDWE, PR_GET_MDWE, 1},
};

int main(int argc, char **argv) {
  check_start(argc, argv);
  size_t i = 0;
  while (i < sizeof(cases) / sizeof(cases[0]) && (argc < 3 || strcmp(cases[i].name, argv[2]))) i++;
  if (i == sizeof(cases) / sizeof(cases[0])) check_die("which property?");
  long before, after;
  if (!strcmp(cases[i].name, "mce"))
    MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
  else
    MUST(prctl(cases[i].set, cases[i].value, 0, 0, 0));
  before = prctl(cases[i].get, 0, 0, 0, 0);
  check_ready();
  after = prctl(cases[i].get, 0, 0, 0, 0);
  CHECK_EQ("%s", before, after, cases[i].name);
  return check_finish();
}
