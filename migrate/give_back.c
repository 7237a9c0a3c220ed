#include "migrate/give_back.h"

#include <unistd.h>

#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/log.h"
#include "base/loop.h"
#include "migrate/guest.h"
#include "migrate/record.h"

#define GIVE_BACK_S 3 /* one that waits for a page answers nobody any more, and nobody should wait long for that */

struct give_back {
    uv_loop_t loop;
    struct guest *guest;
    const struct options *options;
    int rc;
    struct err err;
};

static void give_back_end(struct give_back *g, int rc)
{
    g->rc = rc;
    uv_stop(&g->loop);
}

static void give_back_looked(void *user, const struct err *err)
{
    struct give_back *g = user;
    const struct options *o = g->options;
    if (err)
        g->err = *err;
    give_back_end(g, err ? -1 : record_take_back(o->record_file, o->migration_id, &g->err));
}

static void give_back_gone(void *user, const struct err *err)
{
    struct give_back *g = user;
    g->err = *err;
    give_back_end(g, -1);
}

static int give_back_ask(struct give_back *g)
{
    const struct options *o = g->options;
    const struct guest_events events = {.on_gone = give_back_gone, .user = g};
    if (!record_fetching(o->record_file, o->migration_id))
        return err_set(
            &g->err, ERR_WRONG_STATE, "%s does not say that pages of this guest are missing", o->record_file);
    if (guest_open(&g->loop, o->qmp, &events, &g->err, &g->guest) < 0)
        return -1;
    guest_look_paused(g->guest, give_back_looked, g);
    uv_run(&g->loop, UV_RUN_DEFAULT);
    return g->rc;
}

int give_back_run(const struct options *options)
{
    struct give_back g = {.options = options};
    (void)alarm(GIVE_BACK_S);
    ENSURE(uv_loop_init(&g.loop) == 0);
    crashpoint("give-back", "begun");
    int rc = give_back_ask(&g);
    if (rc < 0)
        log_event(LOG_WARN, "guest.kept", "message=%s", LOG_QUOTE(g.err.message));
    else
        log_event(LOG_INFO, "guest.given_back", "migration=%s", options->migration_id);
    crashpoint("give-back", "done");
    guest_close(g.guest);
    uv_run(&g.loop, UV_RUN_DEFAULT); /* the monitor's connection closes in its own time */
    loop_close(&g.loop);
    return rc < 0;
}
