/* Waits until something has happened, or fails the test after some seconds: the deadline is for a broken build, never
 * part of a passing test. Behind cmocka.h. */
#ifndef TESTS_LIB_UNTIL_H
#define TESTS_LIB_UNTIL_H

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "base/loop.h"

#define UNTIL_MS 60000

/* Looks every millisecond: for what happens in other threads and processes, that no loop is told of. */
#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        for (uint64_t until_ms = clock_now_ms() + UNTIL_MS; !(condition); usleep(1000))                                \
            if (clock_now_ms() > until_ms)                                                                             \
                fail_msg("not within %d s: %s", UNTIL_MS / 1000, #condition);                                          \
    } while (0)

struct until {
    uv_prepare_t before_waiting;
    bool (*condition)(void *user);
    void *user;
};

static inline void until_late(void *user)
{
    *(bool *)user = true;
}

/* A timer may have made it true in this very turn: then the loop must not wait for anything else. */
static inline void until_before_waiting(uv_prepare_t *prepare)
{
    const struct until *until = prepare->data;
    if (until->condition(until->user))
        uv_stop(prepare->loop);
}

static inline void until_closed(uv_handle_t *handle)
{
    free(handle->data);
}

/* True when `condition(user)` became true. */
static inline bool loop_until(uv_loop_t *loop, bool (*condition)(void *user), void *user)
{
    bool late = false;
    struct loop_timer *timer = loop_timer_new(loop, until_late, &late);
    struct until *until = mem_zalloc(sizeof *until);
    *until = (struct until){.condition = condition, .user = user};
    ENSURE(uv_prepare_init(loop, &until->before_waiting) == 0);
    until->before_waiting.data = until;
    ENSURE(uv_prepare_start(&until->before_waiting, until_before_waiting) == 0);
    loop_timer_start(timer, UNTIL_MS, 0);
    while (!condition(user) && !late)
        uv_run(loop, UV_RUN_ONCE);
    loop_timer_free(timer);
    uv_close((uv_handle_t *)&until->before_waiting, until_closed);
    return !late;
}

#endif
