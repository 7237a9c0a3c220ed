/* cpulist: sets of processor cores as the kernel and people write them: "0,2-3". Pure. */
#ifndef BASE_CPULIST_H
#define BASE_CPULIST_H

#include <sched.h>

#include "base/err.h"

/* ERR_INVALID: not such a list, or a core beyond CPU_SETSIZE. An empty text is an empty set. */
MUST_CHECK int cpulist_parse(const char *text, struct err *err, cpu_set_t *out);
/* Take: free(). */
char *cpulist_format(const cpu_set_t *set);

#endif
