#include "raft/kick.h"

#include "base/buf.h"
#include "base/ensure.h"

struct kick {
    uv_idle_t idle;
    void (*fn)(void *user);
    void *user;
};

static void kick_run(uv_idle_t *idle)
{
    struct kick *kick = idle->data;
    uv_idle_stop(idle);
    kick->fn(kick->user);
}

struct kick *kick_new(uv_loop_t *loop, void (*fn)(void *user), void *user)
{
    struct kick *kick = mem_zalloc(sizeof *kick);
    kick->fn = fn;
    kick->user = user;
    ENSURE(uv_idle_init(loop, &kick->idle) == 0);
    kick->idle.data = kick;
    return kick;
}

void kick_arm(struct kick *kick)
{
    uv_idle_start(&kick->idle, kick_run);
}

static void kick_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void kick_free(struct kick *kick)
{
    if (kick)
        uv_close((uv_handle_t *)&kick->idle, kick_closed);
}
