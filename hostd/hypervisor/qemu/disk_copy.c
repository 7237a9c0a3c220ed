/* The shell around copy_step(): looks at QEMU (copy_look.h), asks what is next, does it, and looks again.
 *
 * A look is four queries in a row. Events of QEMU's jobs, and the timer, only say that it is worth while to look; a
 * monitor that is lost is looked through again once it is back. */
#include "hostd/hypervisor/disk_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "hostd/hypervisor/qemu/command.h"
#include "hostd/hypervisor/qemu/copy_look.h"
#include "hostd/hypervisor/qemu/private.h"
#include "storage/image.h"
#include "storage/place.h"

#define LOOK_EVERY_MS 500
#define RETRY_MS      100
#define CONTINUE_MS   1000  /* between two tries to have a guest go on that QEMU stops again */
#define COMMAND_MS    30000 /* opening an image may wait for its storage */
#define TRIES_MAX     50    /* of what must be done but was refused, RETRY_MS apart, before the guest is given up */

struct disk_copy {
    uv_loop_t *loop;
    struct guest *guest;
    struct disk_copy_events events;
    struct disk_copy_config config; /* its strings are owned */
    char partial[PATH_MAX];
    struct copy_names names;
    struct copy_known known;
    struct copy_look seen;
    struct err failure; /* why it is off */
    struct loop_timer *timer;
    bool busy;       /* a look or a step is under way */
    bool look_again; /* something happened meanwhile */
    bool old_left;   /* the old file could not be closed */
    unsigned tries;  /* in vain, in a row */
    uint64_t stopped_us, pause_us;
    uint64_t continued_us; /* when the guest was last told to go on; 0: not since we stopped it */
    struct image *image;
    struct sync *sync;
};

/* Work on a thread; outlives a copy that is freed. */
struct sync {
    uv_work_t work;
    struct disk_copy *copy; /* NULL: nobody waits */
    char old[PATH_MAX], new[PATH_MAX];
    int said; /* of the new file */
    struct err err;
};

static uint64_t now_us(void)
{
    return clock_now_ns() / 1000;
}

static void look(struct disk_copy *copy);
static void act(struct disk_copy *copy);

static void look_later(struct disk_copy *copy, uint64_t ms)
{
    copy->busy = false;
    loop_timer_start(copy->timer, copy->look_again ? 0 : ms, 0);
    copy->look_again = false;
}

static void look_due(void *user)
{
    struct disk_copy *copy = user;
    if (!copy->busy)
        look(copy);
}

/* Told of QEMU's jobs by the guest. */
static void job_event(void *user)
{
    struct disk_copy *copy = user;
    if (copy->busy)
        copy->look_again = true;
    else
        loop_timer_start(copy->timer, 0, 0);
}

static void command(struct disk_copy *copy, const char *name, json_t *arguments, qmp_reply_fn fn)
{
    if (!guest_command(copy->guest, name, arguments, COMMAND_MS, fn, copy))
        look_later(copy, RETRY_MS);
}

/* A copy that is being freed must not be touched: the guest cancels what is under way. */
static bool gone(const struct err *err)
{
    return err && err->code == ERR_CANCELLED;
}

/* QEMU said no. Anything else, a lost monitor for one, leaves open what has become of the command: the next look says.
 */
static bool refused(const struct err *err)
{
    return err && err->code == ERR_WRONG_STATE;
}

static void fail(struct disk_copy *copy, const struct err *err)
{
    if (!copy->known.off) {
        copy->failure = *err;
        log_event(LOG_WARN, "disk.copy_failed", "move=%s reason=%s", copy->config.id, LOG_QUOTE(err->message));
    }
    copy->known.off = true;
}

/* --- looking --- */

static void copying_failed(struct disk_copy *copy)
{
    struct err err;
    bool full = strcmp(copy->seen.job_error, strerror(ENOSPC)) == 0; /* QEMU has no other word for it */
    err_set(&err, full ? ERR_CAPACITY : ERR_INTERNAL, "copying %.140s to %.140s: %s%s", copy->config.source,
        copy->config.target, copy->seen.job_error,
        full ? "; make room there, or name another place: `drover vm move-storage --to`" : "");
    fail(copy, &err);
}

static void looked(struct disk_copy *copy, size_t i, const struct err *err, json_t *result);

#define LOOKED(n)                                                                                                      \
    static void looked_##n(void *user, const struct err *err, json_t *result)                                          \
    {                                                                                                                  \
        looked(user, n, err, result);                                                                                  \
    }
LOOKED(0)
LOOKED(1)
LOOKED(2)
LOOKED(3)
static const qmp_reply_fn looked_fns[COPY_LOOKS] = {looked_0, looked_1, looked_2, looked_3};

static void look_at(struct disk_copy *copy, size_t i)
{
    json_t *arguments = copy_looks[i].flat ? json_pack("{s:b}", "flat", 1) : NULL;
    command(copy, copy_looks[i].command, arguments, looked_fns[i]);
}

static void look(struct disk_copy *copy)
{
    copy->busy = true;
    copy->look_again = false;
    copy_look_begin(&copy->seen);
    look_at(copy, 0);
}

static void looked(struct disk_copy *copy, size_t i, const struct err *err, json_t *result)
{
    if (gone(err))
        return;
    if (err) {
        look_later(copy, RETRY_MS);
        return;
    }
    copy_looks[i].answered(&copy->seen, &copy->names, result);
    if (i + 1 < COPY_LOOKS) {
        look_at(copy, i + 1);
        return;
    }
    if (copy->seen.job_error[0])
        copying_failed(copy);
    if (copy->old_left)
        copy->seen.view.old_open = false;
    act(copy);
}

/* --- acting --- */

/* After a step that may fail for good: the copy is off then. */
static void stepped(void *user, const struct err *err, json_t *result)
{
    struct disk_copy *copy = user;
    (void)result;
    if (gone(err))
        return;
    if (refused(err))
        fail(copy, err);
    look_later(copy, err ? RETRY_MS : 0);
}

/* After a step that has to be done some time. */
static void tried(void *user, const struct err *err, json_t *result)
{
    struct disk_copy *copy = user;
    (void)result;
    if (gone(err))
        return;
    copy->tries = err ? copy->tries + 1 : 0;
    if (copy->tries == TRIES_MAX)
        log_event(LOG_ERROR, "disk.copy_stuck", "move=%s reason=%s", copy->config.id, LOG_QUOTE(err->message));
    if (copy->tries >= TRIES_MAX && !copy->seen.view.running)
        guest_kill(copy->guest); /* it stands still, and nothing will move it; what is written down is right */
    look_later(copy, err ? RETRY_MS : 0);
}

static void continued(void *user, const struct err *err, json_t *result)
{
    struct disk_copy *copy = user;
    if (!err && copy->stopped_us)
        copy->pause_us = now_us() - copy->stopped_us;
    tried(user, err, result);
}

static void completed(void *user, const struct err *err, json_t *result)
{
    struct disk_copy *copy = user;
    if (err && !gone(err))
        copy->known.completed = false;
    if (refused(err) && !copy->known.adopted)
        fail(copy, err); /* it will not change over, so the guest can go on */
    else if (err && !gone(err))
        copy->known.adopted = true; /* it may or may not, as if somebody else had asked */
    tried(user, err, result);
}

static void old_closed(void *user, const struct err *err, json_t *result)
{
    struct disk_copy *copy = user;
    if (err && !gone(err)) {
        log_event(LOG_WARN, "disk.not_closed", "move=%s node=%s reason=%s", copy->config.id, copy->seen.old_node,
            LOG_QUOTE(err->message));
        copy->old_left = true;
    }
    stepped(user, gone(err) ? err : NULL, result);
}

static void image_made(void *user, const struct err *err)
{
    struct disk_copy *copy = user;
    image_free(copy->image);
    copy->image = NULL;
    copy->known.made = err == NULL;
    if (err)
        fail(copy, err);
    look_later(copy, 0);
}

static void do_make(struct disk_copy *copy)
{
    struct err err;
    bool shallow = copy->config.shallow;
    struct image_config config = {
        .qemu_img = copy->config.qemu_img,
        .path = copy->partial,
        .format = copy->config.format,
        .bytes = copy->seen.bytes,
        .backing = shallow ? copy->seen.backing : NULL,
        .backing_format = shallow ? copy->seen.backing_format : NULL,
    };
    int rc = 0;
    if (copy->seen.bytes == 0)
        rc = err_set(&err, ERR_WRONG_STATE, "QEMU has no disk %zu", copy->config.disk);
    else if (shallow && (!copy->seen.backing || !copy->seen.backing_format || copy->seen.backing[0] != '/'))
        rc = err_set(&err, ERR_INVALID,
            "%.300s has no backing file with an absolute path and a known format: leave out --shallow",
            copy->config.source);
    if (rc < 0 || place_make(copy->config.target, copy->config.id, copy->config.source, &err) < 0 ||
        image_make(copy->loop, &config, image_made, copy, &err, &copy->image) < 0) {
        fail(copy, &err);
        look_later(copy, 0);
    }
}

static void do_open(struct disk_copy *copy)
{
    Drover__Disk disk = DROVER__DISK__INIT;
    disk.path = copy->partial;
    disk.format = (char *)(uintptr_t)copy->config.format;
    disk.cache = (char *)(uintptr_t)copy->config.cache;
    disk.aio = (char *)(uintptr_t)copy->config.aio;
    command(copy, "blockdev-add", command_disk_node(&disk, copy->names.node), stepped);
}

static void do_begin(struct disk_copy *copy)
{
    copy->known.begun = true;
    /* With write-blocking the guest's writes wait for both files, so that it cannot outrun the copying. */
    command(copy, "blockdev-mirror",
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:I}", "job-id", copy->names.job, "device",
            copy->seen.source_node, "target", copy->names.node, "sync", copy->config.shallow ? "top" : "full",
            "copy-mode", "write-blocking", "auto-dismiss", 0, "on-source-error", "report", "on-target-error", "report",
            "speed", (json_int_t)copy->config.bandwidth_bytes_per_s),
        stepped);
}

static void sync_work(uv_work_t *work)
{
    struct sync *sync = work->data;
    struct err err;
    sync->said = place_sync(sync->new, &sync->err);
    (void)!place_sync(sync->old, &err); /* best effort: QEMU flushes again and tells of errors */
}

static void sync_done(uv_work_t *work, int status)
{
    struct sync *sync = work->data;
    struct disk_copy *copy = sync->copy;
    (void)status;
    if (copy) {
        copy->sync = NULL;
        copy->known.flushed = true;
        if (sync->said < 0)
            fail(copy, &sync->err);
        stepped(copy, NULL, NULL);
    }
    free(sync);
}

/* So that QEMU's own flush, with the guest standing still, finds little to do. And it finds out in time where the new
 * file is not at its place any more (its directory was removed, or made anew), and could not get its name then. */
static void do_flush(struct disk_copy *copy)
{
    struct sync *sync = mem_zalloc(sizeof *sync);
    sync->copy = copy;
    sync->work.data = sync;
    snprintf(sync->old, sizeof sync->old, "%s", copy->config.source);
    snprintf(sync->new, sizeof sync->new, "%s", copy->partial);
    copy->sync = sync;
    ENSURE(uv_queue_work(copy->loop, &sync->work, sync_work, sync_done) == 0);
}

static void do_write_down(struct disk_copy *copy)
{
    struct err err;
    int rc = copy->events.on_switched(copy->events.user, &err);
    copy->known.written = rc == 0;
    if (rc < 0)
        log_event(LOG_ERROR, "disk.not_written_down", "move=%s reason=%s", copy->config.id, LOG_QUOTE(err.message));
    tried(copy, rc < 0 ? &err : NULL, NULL);
}

static void do_end(struct disk_copy *copy, bool moved)
{
    struct err err = copy->failure;
    if (!moved && err.code == ERR_NONE)
        err_set(&err, ERR_UNAVAILABLE, "QEMU does not copy the disk (any more)");
    guest_observe_jobs(copy->guest, NULL, NULL);
    copy->events.on_ended(copy->events.user, moved ? NULL : &err);
}

static json_t *node_argument(const char *node)
{
    return json_pack("{s:s}", "node-name", node);
}

static json_t *job_argument(const struct disk_copy *copy)
{
    return json_pack("{s:s}", "id", copy->names.job);
}

/* The guest stands still meanwhile: a mirror that ends while a write of the guest is on its way breaks QEMU's heap
 * (migrate/mirror.h). */
static void do_strike(struct disk_copy *copy)
{
    if (guest_command(copy->guest, "stop", NULL, COMMAND_MS, NULL, NULL))
        (void)guest_command(copy->guest, "job-cancel", job_argument(copy), COMMAND_MS, NULL, NULL);
    command(copy, "cont", NULL, tried);
}

/* QEMU stops a guest again at once whose storage is full: it is asked to go on now and then, not all the time. */
static void do_continue(struct disk_copy *copy)
{
    uint64_t since_ms = (now_us() - copy->continued_us) / 1000;
    if (copy->continued_us && since_ms < CONTINUE_MS) {
        look_later(copy, CONTINUE_MS - since_ms);
        return;
    }
    copy->continued_us = now_us();
    command(copy, "cont", NULL, continued);
}

static void act(struct disk_copy *copy)
{
    enum copy_act next = copy_step(&copy->known, &copy->seen.view);
    if (next != COPY_WAIT)
        log_event(LOG_DEBUG, "disk.copy_step", "move=%s step=%s", copy->config.id, copy_act_name(next));
    if (next != COPY_WAIT)
        crashpoint("hostd.copy", copy_act_name(next));
    switch (next) {
    case COPY_WAIT:
        look_later(copy, LOOK_EVERY_MS);
        return;
    case COPY_MAKE:
        do_make(copy);
        return;
    case COPY_OPEN:
        do_open(copy);
        return;
    case COPY_BEGIN:
        do_begin(copy);
        return;
    case COPY_FLUSH:
        do_flush(copy);
        return;
    case COPY_STOP:
        copy->stopped_us = now_us();
        copy->continued_us = 0;
        command(copy, "stop", NULL, stepped);
        return;
    case COPY_COMPLETE:
        copy->known.completed = true;
        command(copy, "job-complete", job_argument(copy), completed);
        return;
    case COPY_WRITE_DOWN:
        do_write_down(copy);
        return;
    case COPY_CONTINUE:
        do_continue(copy);
        return;
    case COPY_STRIKE:
        do_strike(copy);
        return;
    case COPY_DISMISS:
        command(copy, "job-dismiss", job_argument(copy), tried);
        return;
    case COPY_CLOSE_OLD:
        command(copy, "blockdev-del", node_argument(copy->seen.old_node), old_closed);
        return;
    case COPY_CLOSE_TARGET:
        command(copy, "blockdev-del", node_argument(copy->names.node), tried);
        return;
    case COPY_MOVED:
    case COPY_STAYED:
        do_end(copy, next == COPY_MOVED);
        return;
    }
}

/* --- life --- */

static void config_copy(struct disk_copy_config *to, const struct disk_copy_config *from)
{
    *to = *from;
    to->id = mem_strdup(from->id);
    to->source = mem_strdup(from->source);
    to->target = mem_strdup(from->target);
    to->format = mem_strdup(from->format);
    to->cache = mem_strdup(from->cache);
    to->aio = mem_strdup(from->aio);
    to->qemu_img = mem_strdup(from->qemu_img);
}

struct disk_copy *disk_copy_start(
    uv_loop_t *loop, struct guest *guest, const struct disk_copy_config *config, const struct disk_copy_events *events)
{
    struct disk_copy *copy = mem_zalloc(sizeof *copy);
    copy->loop = loop;
    copy->guest = guest;
    copy->events = *events;
    config_copy(&copy->config, config);
    place_partial(config->target, config->id, copy->partial);
    copy_names_make(config->disk, config->id, &copy->names);
    copy->known = (struct copy_known){.adopted = config->adopt, .written = config->switched};
    copy->timer = loop_timer_new(loop, look_due, copy);
    guest_observe_jobs(guest, job_event, copy);
    loop_timer_start(copy->timer, 0, 0);
    return copy;
}

void disk_copy_cancel(struct disk_copy *copy)
{
    struct err err;
    if (copy->known.off || copy->known.completed || copy->known.written)
        return;
    err_set(&err, ERR_CANCELLED, "cancelled; the guest goes on with %.400s", copy->config.source);
    fail(copy, &err);
    job_event(copy);
}

void disk_copy_progress(const struct disk_copy *copy, uint64_t *done_bytes, uint64_t *total_bytes)
{
    *done_bytes = copy->seen.done_bytes;
    *total_bytes = copy->seen.total_bytes;
}

uint64_t disk_copy_pause_us(const struct disk_copy *copy)
{
    return copy->pause_us;
}

void disk_copy_free(struct disk_copy *copy)
{
    if (!copy)
        return;
    image_free(copy->image);
    if (copy->sync)
        copy->sync->copy = NULL;
    loop_timer_free(copy->timer);
    free((char *)(uintptr_t)copy->config.id);
    free((char *)(uintptr_t)copy->config.source);
    free((char *)(uintptr_t)copy->config.target);
    free((char *)(uintptr_t)copy->config.format);
    free((char *)(uintptr_t)copy->config.cache);
    free((char *)(uintptr_t)copy->config.aio);
    free((char *)(uintptr_t)copy->config.qemu_img);
    copy_look_clear(&copy->seen);
    free(copy);
}
