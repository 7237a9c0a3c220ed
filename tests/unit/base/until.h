/* Runs a loop until something has happened, or fails the test after some seconds: the deadline is for a broken build,
 * never part of a passing test. */
#ifndef TESTS_UNIT_BASE_UNTIL_H
#define TESTS_UNIT_BASE_UNTIL_H

#include <stdbool.h>
#include <uv.h>

#include "base/loop.h"

static inline void until_late(void *user)
{
    *(bool *)user = true;
}

/* True when `condition(user)` became true. */
static inline bool loop_until(uv_loop_t *loop, bool (*condition)(void *user), void *user)
{
    bool late = false;
    struct loop_timer *timer = loop_timer_new(loop, until_late, &late);
    loop_timer_start(timer, 20000, 0);
    while (!condition(user) && !late)
        uv_run(loop, UV_RUN_ONCE);
    loop_timer_free(timer);
    return condition(user);
}

#endif
