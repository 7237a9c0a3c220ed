#include "migrate/puller.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "migrate/batch.h"
#include "proto/bounded.h"
#include "proto/engine.pb-c.h"

#define AGAIN_MS      1000u        /* what is still wanted is asked for again */
#define TELL_MS       5000u        /* one try of telling the source that all is here */
#define MISSING_WORDS (64u << 10)  /* of one answer */
#define STALE_WORDS   (128u << 10) /* of one message, at most */

struct puller {
    struct puller_options options;
    struct filler *filler;
    struct wire_peer *peer;
    struct loop_timer *again;
    uint64_t started_ns, duration_us;            /* of post-copy */
    uint64_t demanded;                           /* pages asked for the first time */
    bool started, here, complete, telling, told; /* `here`: every page; `complete`: and nobody would take it for less */
    uint32_t wanted[FILLER_WANTED_MAX];
    struct batch batch;
};

/* ---- demands ---- */

static void puller_demand(struct puller *p, bool again)
{
    if (!p->peer)
        return;
    size_t count = filler_take_wanted(p->filler, again, p->wanted);
    if (count == 0)
        return;
    struct err err;
    Drover__EngineDemand demand = DROVER__ENGINE_DEMAND__INIT;
    demand.n_pages = count;
    demand.pages = p->wanted;
    if (!again)
        p->demanded += count;
    if (wire_note(p->peer, DROVER__ENGINE_METHOD__ENGINE_DEMAND, &demand.base, &err) < 0)
        log_event(LOG_DEBUG, "demand.unsent", "message=%s", LOG_QUOTE(err.message));
}

static void puller_on_wanted(void *user)
{
    puller_demand(user, false);
}

/* ---- all here ---- */

static void puller_tell(struct puller *p);

static void puller_told(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct puller *p = user;
    (void)body, (void)len;
    p->telling = false;
    if (p->told)
        return;
    if (err) { /* again with the timer, or once the source is back */
        log_event(LOG_INFO, "source.untold", "message=%s", LOG_QUOTE(err->message));
        return;
    }
    p->told = true;
    p->options.on_told(p->options.user);
}

static void puller_tell(struct puller *p)
{
    if (!p->complete || !p->peer || p->telling || p->told)
        return;
    struct filler_stats stats;
    filler_stats(p->filler, &stats);
    Drover__EngineAllHere request = DROVER__ENGINE_ALL_HERE__INIT;
    request.migration_id = p->options.side->options->migration_id;
    request.duration_us = p->duration_us;
    request.demanded_pages = p->demanded;
    request.zero_faults = stats.zero_faults;
    request.late_copies = stats.late_copies;
    request.wait_p50_us = latency_percentile(&stats.waits, 50);
    request.wait_p99_us = latency_percentile(&stats.waits, 99);
    request.wait_max_us = stats.waits.max_us;
    p->telling = true;
    wire_call(p->peer, DROVER__ENGINE_METHOD__ENGINE_ALL_HERE, &request.base, TELL_MS, puller_told, p);
}

static void puller_try_complete(struct puller *p)
{
    if (!p->started || p->complete || !filler_complete(p->filler))
        return;
    if (!p->here) {
        p->here = true;
        p->duration_us = (clock_now_ns() - p->started_ns) / 1000;
        filler_release(p->filler);
    }
    p->complete = p->options.on_complete(p->options.user);
    puller_tell(p);
}

static void puller_on_complete(void *user)
{
    puller_try_complete(user);
}

static void puller_on_filler_failed(void *user, const struct err *err)
{
    struct puller *p = user;
    p->options.on_failed(p->options.user, err);
}

void puller_started(struct puller *p)
{
    p->started = true;
    p->started_ns = clock_now_ns();
    puller_try_complete(p);
}

static void puller_on_again(void *user)
{
    struct puller *p = user;
    puller_demand(p, true);
    puller_try_complete(p);
    puller_tell(p);
}

void puller_set_peer(struct puller *p, struct wire_peer *peer)
{
    if (p->peer == peer)
        return;
    p->peer = peer;
    puller_on_again(p);
}

/* ---- what comes from the source ---- */

int puller_take_stale(struct puller *p, const uint8_t *body, size_t len, struct err *err, bool *last)
{
    Drover__EngineStale *stale = BOUNDED_UNPACK(engine_stale, body, len);
    size_t count = stale ? stale->pages.len / 8 : 0;
    if (!stale || stale->pages.len % 8 || count > STALE_WORDS || stale->first_page % 64) {
        drover__engine_stale__free_unpacked(stale, NULL);
        return err_set(err, ERR_PROTOCOL, "names of stale pages make no sense");
    }
    uint64_t *words = mem_alloc((count + 1) * sizeof *words);
    bitmap_unpack(stale->pages.data, count, words);
    int rc = count ? filler_stale(p->filler, (size_t)(stale->first_page / 64), words, count, err) : 0;
    free(words);
    if (rc == 0 && stale->last)
        filler_seal(p->filler);
    *last = stale->last;
    drover__engine_stale__free_unpacked(stale, NULL);
    return rc;
}

int puller_take_pages(struct puller *p, const uint8_t *body, size_t len, struct err *err)
{
    struct batch *b = &p->batch;
    Drover__EnginePages *pages = BOUNDED_UNPACK(engine_pages, body, len);
    int rc = pages ? batch_decode(pages->batch.data, pages->batch.len, p->options.side->ram.pages, err, b)
                   : err_set(err, ERR_PROTOCOL, "demanded pages make no sense");
    for (uint32_t i = 0; rc == 0 && i < b->runs; i++) {
        const struct batch_run *run = &b->run[i];
        if (run->kind != BATCH_ZERO && run->kind != BATCH_FULL)
            rc = err_set(err, ERR_PROTOCOL, "a demanded page can only come whole");
        else
            rc = filler_fill(
                p->filler, run->first, run->pages, run->kind == BATCH_ZERO ? NULL : b->pages + run->at, err);
    }
    drover__engine_pages__free_unpacked(pages, NULL); /* the batch pointed into it */
    return rc;
}

void puller_answer_missing(struct puller *p, struct wire_request *request, const uint8_t *body, size_t len)
{
    Drover__EngineMissing *missing = BOUNDED_UNPACK(engine_missing, body, len);
    size_t total = (p->options.side->ram.pages + 63) / 64, first = missing ? (size_t)(missing->first_page / 64) : total;
    drover__engine_missing__free_unpacked(missing, NULL);
    if (first >= total) {
        struct err err;
        err_set(&err, ERR_PROTOCOL, "missing pages beyond the end of RAM");
        wire_reply_error(request, &err);
        return;
    }
    size_t count = total - first < MISSING_WORDS ? total - first : MISSING_WORDS;
    uint64_t *words = mem_alloc(count * sizeof *words);
    filler_missing(p->filler, first, count, words);
    bitmap_pack(words, count, (uint8_t *)words);
    Drover__EngineMissingReply reply = DROVER__ENGINE_MISSING_REPLY__INIT;
    reply.pages = (ProtobufCBinaryData){count * sizeof *words, (uint8_t *)words};
    wire_reply(request, &reply.base);
    free(words);
}

/* ---- life ---- */

json_t *puller_report(struct puller *p)
{
    struct filler_stats stats;
    filler_stats(p->filler, &stats);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "duration_us", (json_int_t)p->duration_us,
        "stale_pages", (json_int_t)stats.stale, "demanded_pages", (json_int_t)p->demanded, "zero_faults",
        (json_int_t)stats.zero_faults, "late_copies", (json_int_t)stats.late_copies, "wait_p50_us",
        (json_int_t)latency_percentile(&stats.waits, 50), "wait_p99_us",
        (json_int_t)latency_percentile(&stats.waits, 99), "wait_max_us", (json_int_t)stats.waits.max_us);
}

int puller_open(const struct puller_options *options, struct err *err, struct puller **out)
{
    struct puller *p = mem_zalloc(sizeof *p);
    p->options = *options;
    struct filler_options filler = {
        .pid = (pid_t)options->side->options->qemu_pid,
        .ram = &options->side->ram,
        .on_wanted = puller_on_wanted,
        .on_complete = puller_on_complete,
        .on_failed = puller_on_filler_failed,
        .user = p,
    };
    if (filler_open(&options->side->loop, &filler, err, &p->filler) < 0) {
        free(p);
        return -1;
    }
    p->again = loop_timer_new(&options->side->loop, puller_on_again, p);
    loop_timer_start(p->again, AGAIN_MS, AGAIN_MS);
    *out = p;
    return 0;
}

struct filler *puller_filler(struct puller *p)
{
    return p->filler;
}

void puller_abandon(struct puller *p)
{
    filler_release(p->filler);
}

void puller_close(struct puller *p)
{
    if (!p)
        return;
    loop_timer_free(p->again);
    filler_close(p->filler);
    free(p);
}
