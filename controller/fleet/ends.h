/* How partitions ended that nobody had asked to end: what their hosts said, of the last VMs this happened to. It is
 * the leader's memory, kept across terms as long as the program runs; nothing is decided by it. */
#ifndef CONTROLLER_FLEET_ENDS_H
#define CONTROLLER_FLEET_ENDS_H

#include "controller/state/state.h"

#define ENDS_MAX 256

struct end {
    char vm_id[STATE_ID_MAX];
    char host[STATE_NAME_MAX];
    char why[128];
    int64_t at_ms; /* by the wall clock: for people */
};

struct ends {
    struct end list[ENDS_MAX];
    size_t next; /* the oldest, which the next one replaces */
};

/* Copies everything; takes the place of an earlier end of the VM. */
void ends_note(struct ends *ends, const char *vm_id, const char *host, const char *why, int64_t at_ms);
/* NULL: none is known. Lent until the next is noted. */
const struct end *ends_find(const struct ends *ends, const char *vm_id);

#endif
