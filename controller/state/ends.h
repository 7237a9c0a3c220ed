/* How partitions ended that nobody had asked to end: what their hosts said, of the last ones this happened to. For
 * people: nothing is decided by it.
 *
 * It is kept in settings: these every version applies alike, so a guest that dies stops no member that is older than
 * the leader. They are a ring: the end of number n is in the setting "vm.end.(n modulo ENDS_MAX)" and so takes the
 * place of the one ENDS_MAX before it. */
#ifndef CONTROLLER_STATE_ENDS_H
#define CONTROLLER_STATE_ENDS_H

#include "controller/state/state.h"

#define ENDS_MAX 256

struct end {
    uint64_t number; /* later ends have greater ones */
    char vm_id[STATE_ID_MAX];
    char host[STATE_NAME_MAX];
    char why[128];
    int64_t at_ms; /* by the wall clock */
};

/* What puts it down. Take. */
Drover__Effect *ends_effect(const struct end *end);
/* All that are kept, at most ENDS_MAX, in the order of their numbers. Take: free(). */
size_t ends_all(struct state *state, struct end **out);
/* The VM's last one; NULL: none is known. Lent by the list. */
const struct end *ends_find(const struct end *list, size_t count, const char *vm_id);

#endif
