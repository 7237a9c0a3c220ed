#include "hostd/hypervisor/qemu/thaw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"
#include "base/log.h"
#include "base/loop.h"
#include "hostd/hypervisor/qemu/private.h"

#define COMMAND_TIMEOUT_MS  5000 /* it is asked again by whoever wants the guest to run */
#define ANNOUNCE_TIMEOUT_MS 10000
#define SETTLE_STEP_MS      20 /* between looks at a migration that is being cut off */

struct thaw {
    const struct hypervisor *hv;
    struct guest *guest;
    guest_done_fn fn; /* NULL: nothing is under way */
    void *user;
    struct loop_timer *settle;
    unsigned steps;
    bool broken;     /* it would have to be reset before it can run again */
    char status[32]; /* of the migration that it does not leave */
};

static void thaw_end(struct thaw *thaw, const struct err *err)
{
    guest_done_fn fn = thaw->fn;
    thaw->fn = NULL;
    if (fn)
        fn(thaw->user, err);
}

static void thaw_ask(struct thaw *thaw, const char *command, qmp_reply_fn fn)
{
    struct err err;
    if (guest_command(thaw->guest, command, NULL, COMMAND_TIMEOUT_MS, fn, thaw))
        return;
    err_set(&err, ERR_UNAVAILABLE, "QEMU's monitor is not connected");
    thaw_end(thaw, &err);
}

/* The network may have been told that the guest is elsewhere: nobody waits until it knows better. */
static void thaw_announce(struct thaw *thaw)
{
    json_t *often = json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 3, "step", 100);
    guest_command(thaw->guest, "announce-self", often, ANNOUNCE_TIMEOUT_MS, NULL, NULL);
}

/* QEMU refuses to continue while something it needs, a disk's lock for one, is held by another process. The guest is
 * whole, and it is unknown how long that takes: the caller may ask again (ERR_BUSY). Only a guest that would have to be
 * reset never runs again. */
static void thaw_continued(void *user, const struct err *err, json_t *result)
{
    struct thaw *thaw = user;
    struct err why;
    (void)result;
    if (err && err->code == ERR_CANCELLED)
        return;
    if (!err)
        thaw_announce(thaw);
    if (err && err->code == ERR_WRONG_STATE && !thaw->broken) {
        err_set(&why, ERR_BUSY, "%s", err->message);
        err = &why;
    }
    thaw_end(thaw, err);
}

static bool run_state_broken(const char *status)
{
    return status && (strcmp(status, "internal-error") == 0 || strcmp(status, "shutdown") == 0);
}

static void thaw_run_state_known(void *user, const struct err *err, json_t *result)
{
    struct thaw *thaw = user;
    if (err && err->code == ERR_CANCELLED)
        return;
    if (err)
        thaw_end(thaw, err);
    else if (json_is_true(json_object_get(result, "running")))
        thaw_end(thaw, NULL);
    else {
        thaw->broken = run_state_broken(json_string_value(json_object_get(result, "status")));
        thaw_ask(thaw, "cont", thaw_continued);
    }
}

/* QEMU has been told to give its migration up, and does not come to it. A guest that executes will go on doing so. */
static void thaw_stuck_known(void *user, const struct err *err, json_t *result)
{
    struct thaw *thaw = user;
    struct err late;
    if (err && err->code == ERR_CANCELLED)
        return;
    if (!err && json_is_true(json_object_get(result, "running")) && strcmp(thaw->status, "cancelling") == 0) {
        log_event(LOG_WARN, "guest.stuck", "pid=%d migration=%s running=1", (int)guest_process(thaw->guest).pid,
            thaw->status);
        thaw_end(thaw, NULL);
        return;
    }
    err_set(&late, ERR_TIMEOUT, "QEMU does not leave its migration (status %s)", thaw->status);
    thaw_end(thaw, &late);
}

static bool migration_at_work(const char *status)
{
    static const char *const working[] = {
        "setup", "cancelling", "active", "pre-switchover", "device", "wait-unplug", "postcopy-active"};
    for (size_t i = 0; i < sizeof working / sizeof *working; i++)
        if (strcmp(status, working[i]) == 0)
            return true;
    return false;
}

static void thaw_migration_known(void *user, const struct err *err, json_t *result)
{
    struct thaw *thaw = user;
    if (err && err->code == ERR_CANCELLED)
        return;
    const char *status = json_string_value(json_object_get(result, "status"));
    if (err) {
        thaw_end(thaw, err);
    } else if (status && migration_at_work(status)) {
        if (++thaw->steps > thaw->hv->settle_ms / SETTLE_STEP_MS) {
            snprintf(thaw->status, sizeof thaw->status, "%s", status);
            thaw_ask(thaw, "query-status", thaw_stuck_known);
            return;
        }
        loop_timer_start(thaw->settle, SETTLE_STEP_MS, 0); /* QEMU has no command that waits for it */
    } else {
        thaw_ask(thaw, "query-status", thaw_run_state_known);
    }
}

static void thaw_look(void *user)
{
    struct thaw *thaw = user;
    thaw_ask(thaw, "query-migrate", thaw_migration_known);
}

static void thaw_migration_cut(void *user, const struct err *err, json_t *result)
{
    (void)result;
    if (err && err->code == ERR_TIMEOUT)
        thaw_end(user, err);
    else if (!err || err->code != ERR_CANCELLED) /* it refuses where there is none */
        thaw_look(user);
}

struct thaw *thaw_new(const struct hypervisor *hv, struct guest *guest)
{
    struct thaw *thaw = mem_zalloc(sizeof *thaw);
    thaw->hv = hv;
    thaw->guest = guest;
    thaw->settle = loop_timer_new(hv->loop, thaw_look, thaw);
    return thaw;
}

void thaw_free(struct thaw *thaw)
{
    if (!thaw)
        return;
    loop_timer_free(thaw->settle);
    free(thaw);
}

void thaw_begin(struct thaw *thaw, guest_done_fn fn, void *user)
{
    ENSURE(!thaw->fn);
    thaw->fn = fn;
    thaw->user = user;
    thaw->steps = 0;
    if (!guest_command(thaw->guest, "migrate_cancel", NULL, COMMAND_TIMEOUT_MS, thaw_migration_cut, thaw))
        loop_timer_start(thaw->settle, 0, 0); /* never from inside the call */
}

void thaw_stop(struct thaw *thaw)
{
    thaw->fn = NULL;
    loop_timer_stop(thaw->settle);
}
