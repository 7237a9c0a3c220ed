#include "base/loop.h"

#include <signal.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/ensure.h"

struct loop_timer {
    uv_timer_t handle;
    loop_timer_fn fn;
    void *user;
};

static void loop_timer_fired(uv_timer_t *handle)
{
    struct loop_timer *timer = handle->data;
    timer->fn(timer->user);
}

struct loop_timer *loop_timer_new(uv_loop_t *loop, loop_timer_fn fn, void *user)
{
    struct loop_timer *timer = mem_zalloc(sizeof *timer);
    ENSURE(uv_timer_init(loop, &timer->handle) == 0);
    timer->handle.data = timer;
    timer->fn = fn;
    timer->user = user;
    return timer;
}

void loop_timer_start(struct loop_timer *timer, uint64_t first_ms, uint64_t repeat_ms)
{
    uv_update_time(timer->handle.loop);
    ENSURE(uv_timer_start(&timer->handle, loop_timer_fired, first_ms, repeat_ms) == 0);
}

void loop_timer_stop(struct loop_timer *timer)
{
    uv_timer_stop(&timer->handle);
}

void loop_timer_unref(struct loop_timer *timer)
{
    uv_unref((uv_handle_t *)&timer->handle);
}

static void loop_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void loop_timer_free(struct loop_timer *timer)
{
    if (timer && !uv_is_closing((uv_handle_t *)&timer->handle))
        uv_close((uv_handle_t *)&timer->handle, loop_timer_closed);
}

/* One process has one loop that is stopped by signals, so this state is the process's. */
static struct {
    uv_signal_t handles[2];
    void (*fn)(void *user);
    void *user;
    bool listening;
    bool stopping;
} stop;

static void loop_signalled(uv_signal_t *handle, int number)
{
    (void)handle;
    if (stop.stopping)
        _Exit(128 + number);
    stop.stopping = true;
    log_event(LOG_INFO, "program.stopping", "signal=%d", number);
    stop.fn(stop.user);
}

int loop_on_stop(uv_loop_t *loop, void (*fn)(void *user), void *user, struct err *err)
{
    static const int numbers[2] = {SIGINT, SIGTERM};
    signal(SIGPIPE, SIG_IGN);
    stop.fn = fn;
    stop.user = user;
    for (int i = 0; i < 2; i++) {
        int rc = uv_signal_init(loop, &stop.handles[i]);
        if (rc == 0)
            rc = uv_signal_start(&stop.handles[i], loop_signalled, numbers[i]);
        if (rc != 0)
            return err_set(err, ERR_INTERNAL, "cannot listen for signals: %s", uv_strerror(rc));
        uv_unref((uv_handle_t *)&stop.handles[i]);
    }
    stop.listening = true;
    return 0;
}

void loop_stop_listening(uv_loop_t *loop)
{
    (void)loop;
    if (!stop.listening)
        return;
    stop.listening = false;
    for (int i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&stop.handles[i], NULL);
}

static void loop_close_one(uv_handle_t *handle, void *user)
{
    (void)user;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void loop_close(uv_loop_t *loop)
{
    stop.listening = false;
    uv_walk(loop, loop_close_one, NULL);
    while (uv_run(loop, UV_RUN_DEFAULT) != 0)
        continue;
    ENSURE(uv_loop_close(loop) == 0);
}
