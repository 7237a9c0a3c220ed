/* Collecting what must be sent again: what the tracker saw written, and what it cannot see by itself.
 *
 * Direct I/O: a disk that is read past the page cache writes guest memory by DMA. Its pages are faulted in and pinned
 * when the request is made, so the tracker reports them; what the request writes after that scan leaves no trace. A
 * page is exact only when it is read after a moment at which the disks had nothing under way (a drain) and that came
 * after the page was reported. QEMU drains its disks at the begin of every transaction, also of one without actions,
 * and the guest runs on: so each round is collected by
 *
 *   scan A        pages written during the round: some may be the target of a request still under way
 *   drain         those requests are done: A, and what was unsettled before, is sent now and is exact
 *   scan B        the few pages written meanwhile: sent now, and unsettled, so sent once more after the next drain
 *
 * and the switch begins with what little is unsettled: QEMU stops the guest with a drain of its own.
 *
 * Freed pages: holes.h.
 *
 * Written and sent: a pass takes a while, and what was written before a page's turn came is in what is read. So a part
 * of RAM is looked at once more right before it is read, and its pages are protected again: only what is written after
 * that is for the next round. Pages that are not in the pass are, and so are those that were holes when it began: they
 * are not watched yet, and would be freed again unseen. To direct I/O it is a report like any other. */
#include "base/clock.h"
#include "base/ensure.h"
#include "migrate/blind.h"
#include "migrate/source_private.h"

int source_open_collecting(struct source *s, struct err *err)
{
    struct collecting *c = &s->collecting;
    if (blind_check_process((pid_t)s->side.options->qemu_pid, err) < 0)
        return -1;
    c->direct = guest_reads_directly(s->side.guest);
    c->fresh = bitmap_new(s->side.ram.pages);
    c->unsettled = bitmap_new(s->side.ram.pages);
    c->renewed = bitmap_new(s->side.ram.pages);
    return guest_frees_memory(s->side.guest) ? holes_open(&s->side.ram, err, &c->holes) : 0;
}

void source_close_collecting(struct source *s)
{
    struct collecting *c = &s->collecting;
    while (c->watching) /* the worker uses what is freed here */
        uv_run(&s->side.loop, UV_RUN_ONCE);
    holes_close(c->holes);
    bitmap_free(&c->fresh);
    bitmap_free(&c->unsettled);
    bitmap_free(&c->renewed);
}

int source_scan(struct source *s, struct err *err)
{
    struct collecting *c = &s->collecting;
    if (!s->tracker) /* nothing has been sent */
        return ram_allocated(&s->side.ram, err, &s->dirty);
    if (c->holes && holes_scan(c->holes, err, &s->dirty) < 0)
        return -1;
    if (!c->direct)
        return tracker_scan(s->tracker, err, &s->dirty);
    bitmap_clear(&c->fresh);
    if (tracker_scan(s->tracker, err, &c->fresh) < 0)
        return -1;
    bitmap_add(&s->dirty, &c->fresh);
    bitmap_add(&c->unsettled, &c->fresh);
    return 0;
}

int source_renew(void *user, size_t first, size_t pages, struct err *err)
{
    struct source *s = user;
    return s->collecting.renewing ? tracker_rescan(s->tracker, first, pages, err, &s->collecting.renewed) : 0;
}

size_t source_renewed(struct source *s)
{
    struct collecting *c = &s->collecting;
    size_t pages = 0;
    for (size_t i = 0; c->renewing && i < bitmap_words(&c->renewed); i++) {
        uint64_t word = c->renewed.words[i];
        uint64_t watched = c->holes ? holes_watched(c->holes)->words[i] : UINT64_MAX;
        uint64_t there = word & s->sending.words[i] & watched;
        pages += (size_t)__builtin_popcountll(there);
        s->dirty.words[i] |= word & ~there;
        if (c->direct)
            c->unsettled.words[i] |= word;
        c->renewed.words[i] = 0;
    }
    return pages;
}

void source_drained(struct source *s)
{
    struct collecting *c = &s->collecting;
    if (!c->direct)
        return;
    bitmap_add(&s->dirty, &c->unsettled);
    bitmap_clear(&c->unsettled);
}

int source_watch(struct source *s, struct err *err)
{
    return s->collecting.holes ? holes_watch(s->collecting.holes, &s->sending, err) : 0;
}

/* ---- a round's ---- */

static void collect_end(struct source *s)
{
    if (s->phase == SOURCE_PRECOPY)
        s->collecting.then(s);
}

static void watch_work(uv_work_t *work)
{
    struct source *s = work->data;
    struct collecting *c = &s->collecting;
    c->rc = holes_watch(c->holes, &s->dirty, &c->err);
}

static void watch_done(uv_work_t *work, int status)
{
    struct source *s = work->data;
    (void)status;
    s->collecting.watching = false;
    if (s->collecting.rc < 0)
        source_fail_if_running(s, &s->collecting.err);
    else
        collect_end(s);
}

/* Watching is done before every pass; the bulk of it, before the first, would hold up the loop. */
static void collect_watch(struct source *s)
{
    struct collecting *c = &s->collecting;
    if (!c->holes) {
        collect_end(s);
        return;
    }
    c->watching = true;
    c->work.data = s;
    ENSURE(uv_queue_work(&s->side.loop, &c->work, watch_work, watch_done) == 0);
}

static void collect_drained(void *user, const struct err *err)
{
    struct source *s = user;
    struct err why;
    if (s->phase != SOURCE_PRECOPY)
        return;
    if (err) {
        why = *err;
        err_wrap(&why, "waiting for the guest's disk requests");
        source_fail(s, &why);
        return;
    }
    log_event(LOG_DEBUG, "disks.drained", "after_us=%llu unsettled_pages=%zu",
        (unsigned long long)(clock_now_ns() - s->collecting.drain_ns) / 1000, bitmap_count(&s->collecting.unsettled));
    source_drained(s);
    if (source_scan(s, &why) < 0)
        source_fail(s, &why);
    else
        collect_watch(s);
}

void source_collect(struct source *s, void (*then)(struct source *s))
{
    struct err err;
    s->collecting.then = then;
    if (source_scan(s, &err) < 0) {
        source_fail(s, &err);
    } else if (s->collecting.direct) {
        s->collecting.drain_ns = clock_now_ns();
        guest_drain(s->side.guest, collect_drained, s);
    } else {
        collect_watch(s);
    }
}
