/* Small helpers over libuv, so that every program runs things on its loop in one way: a timer that owns itself, a
 * signal handler that stops the program, and closing a whole loop. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdint.h>
#include <uv.h>

#include "base/err.h"

struct loop_timer;
typedef void (*loop_timer_fn)(void *user);

/* A timer on `loop`; fires after `first_ms` and then every `repeat_ms` (0: once). Take: free with loop_timer_free(). */
struct loop_timer *loop_timer_new(uv_loop_t *loop, loop_timer_fn fn, void *user);
void loop_timer_start(struct loop_timer *timer, uint64_t first_ms, uint64_t repeat_ms);
void loop_timer_stop(struct loop_timer *timer);
/* The timer no longer keeps the loop running by itself. */
void loop_timer_unref(struct loop_timer *timer);
/* Stops and frees; NULL is fine. Safe inside its own callback. */
void loop_timer_free(struct loop_timer *timer);

/* Calls `fn` on the loop at the first SIGINT or SIGTERM; a second one ends the process at once. SIGPIPE is ignored. */
MUST_CHECK int loop_on_stop(uv_loop_t *loop, void (*fn)(void *user), void *user, struct err *err);
/* Stops listening for signals, so that the loop can drain. */
void loop_stop_listening(uv_loop_t *loop);

/* Closes every handle still open (its memory must outlive this call), runs the callbacks and closes the loop. */
void loop_close(uv_loop_t *loop);

#endif
