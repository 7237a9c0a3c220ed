#include "hostd/hypervisor/qemu/halt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/loop.h"
#include "hostd/hypervisor/qemu/private.h"

#define COMMAND_TIMEOUT_MS 10000
#define SETTLE_MS          1000 /* until a request that is repeated has failed again */

struct halt {
    struct guest *guest;
    halt_fn fn;
    void *user;
    struct loop_timer *look;
    bool failed; /* a disk has, so that the guest stands still, or is about to */
    bool halted;
};

void halt_words(json_t *blocks, char out[static HALT_WHY_MAX])
{
    size_t i;
    json_t *block;
    json_array_foreach(blocks, i, block)
    {
        const char *status = json_string_value(json_object_get(block, "io-status"));
        if (!status || strcmp(status, "ok") == 0)
            continue;
        const char *file = json_string_value(json_object_get(json_object_get(block, "inserted"), "file"));
        bool full = strcmp(status, "nospace") == 0;
        snprintf(out, HALT_WHY_MAX, full ? "the storage of its disk %.160s is full" : "its disk %.160s has failed",
            file ? file : "?");
        return;
    }
    snprintf(out, HALT_WHY_MAX, "one of its disks has failed");
}

static void halt_disks_known(void *user, const struct err *err, json_t *result)
{
    struct halt *halt = user;
    char why[HALT_WHY_MAX];
    if (err && err->code == ERR_CANCELLED)
        return;
    halt_words(err ? NULL : result, why);
    halt->halted = true;
    halt->fn(halt->user, why);
}

void halt_status(struct halt *halt, json_t *status)
{
    const char *name = json_string_value(json_object_get(status, "status"));
    if (name && strcmp(name, "io-error") == 0) {
        guest_command(halt->guest, "query-block", NULL, COMMAND_TIMEOUT_MS, halt_disks_known, halt);
    } else if (halt->halted) {
        halt->halted = halt->failed = false;
        halt->fn(halt->user, NULL);
    }
}

static void halt_status_known(void *user, const struct err *err, json_t *result)
{
    if (!err)
        halt_status(user, result);
}

static void halt_look(void *user)
{
    struct halt *halt = user;
    guest_command(halt->guest, "query-status", NULL, COMMAND_TIMEOUT_MS, halt_status_known, halt);
}

/* A STOP alone is mostly that of a migration, whose blackout nothing else may be asked in. */
void halt_event(struct halt *halt, const char *event, json_t *data)
{
    const char *action = json_string_value(json_object_get(data, "action"));
    bool stops = strcmp(event, "BLOCK_IO_ERROR") == 0 && action && strcmp(action, "stop") == 0;
    halt->failed |= stops;
    if (stops || (halt->failed && strcmp(event, "STOP") == 0))
        halt_look(halt);
}

/* How it went is looked at later: a request that fails again stops the guest within moments. */
static void halt_continued(void *user, const struct err *err, json_t *result)
{
    struct halt *halt = user;
    (void)result;
    if (!err || err->code != ERR_CANCELLED)
        loop_timer_start(halt->look, SETTLE_MS, 0);
}

static void halt_may_continue(void *user, const struct err *err, json_t *result)
{
    struct halt *halt = user;
    const char *name = json_string_value(json_object_get(result, "status"));
    if (!err && name && strcmp(name, "io-error") == 0)
        guest_command(halt->guest, "cont", NULL, COMMAND_TIMEOUT_MS, halt_continued, halt);
    else if (!err)
        halt_status(halt, result);
}

void halt_continue(struct halt *halt)
{
    guest_command(halt->guest, "query-status", NULL, COMMAND_TIMEOUT_MS, halt_may_continue, halt);
}

void halt_stop(struct halt *halt)
{
    loop_timer_stop(halt->look);
}

struct halt *halt_new(uv_loop_t *loop, struct guest *guest, halt_fn fn, void *user)
{
    struct halt *halt = mem_zalloc(sizeof *halt);
    *halt = (struct halt){.guest = guest, .fn = fn, .user = user};
    halt->look = loop_timer_new(loop, halt_look, halt);
    return halt;
}

void halt_free(struct halt *halt)
{
    if (!halt)
        return;
    loop_timer_free(halt->look);
    free(halt);
}
