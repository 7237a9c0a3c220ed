/* hostidle: how many of the host's cores have had nothing to do lately. One thread looks, any may ask. */
#ifndef MIGRATE_HOSTIDLE_H
#define MIGRATE_HOSTIDLE_H

#include <stdatomic.h>
#include <stdint.h>

struct hostidle {
    uint64_t looked_ns, ticks; /* when last, and of all cores since the host was booted; 0: not yet */
    _Atomic double cores;      /* over the time between the last two looks; 0 before that */
};

/* Looks if that was not done lately. */
void hostidle_look(struct hostidle *idle, uint64_t now_ns);

#endif
