/* Checks of our own invariants. They stay in every build: a broken invariant ends the process loudly, because going on
 * could run a guest twice. Foreign input is never checked with ENSURE; it gets a `struct err`. */
#ifndef BASE_ENSURE_H
#define BASE_ENSURE_H

#include <stdlib.h>

#include "base/log.h"

#define ENSURE(condition)                                                                                              \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0)) {                                                                       \
            log_event(LOG_ERROR, "ensure.failed", "check=\"%s\" at=%s:%d", #condition, __FILE__, __LINE__);            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
