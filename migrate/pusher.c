#include "migrate/pusher.h"

#include <stdlib.h>

#include "base/ensure.h"
#include "base/loop.h"
#include "migrate/sieve.h"
#include "proto/bounded.h"
#include "proto/engine.pb-c.h"

#define CALL_MS        10000u
#define AGAIN_MS       500u        /* after a resume that failed */
#define TICK_MS        500u        /* how much is left is told so often */
#define SENT_MS        2000u       /* all is sent and acknowledged, yet the destination misses something: look */
#define CHUNK_WORDS    (64u << 10) /* of one message about pages: 16 GiB of guest RAM */
#define WINDOW_BYTES   (1u << 20)  /* all stripes: what a demanded page may find ahead of it on the link */
#define DEMANDS_MAX    4096u
#define FREED_RUNS_MAX 4096u /* freeing a run costs about 3 us of blackout on the destination */
#define GAP_PAGES_MAX  64u

enum pusher_state {
    PUSHER_COLD,
    PUSHER_ARMING,
    PUSHER_ARMED,
    PUSHER_NAMING,
    PUSHER_SEALED,
    PUSHER_PUSHING,
    PUSHER_SENT,
    PUSHER_RESUMING,
    PUSHER_STOPPED,
    PUSHER_STATES
};

#define TO(state) (1u << (state))
static const struct {
    const char *name;
    unsigned successors;
} states[PUSHER_STATES] = {
    [PUSHER_COLD] = {"cold", TO(PUSHER_ARMING) | TO(PUSHER_SEALED) | TO(PUSHER_STOPPED)},
    [PUSHER_ARMING] = {"arming", TO(PUSHER_ARMED) | TO(PUSHER_STOPPED)},
    [PUSHER_ARMED] = {"armed", TO(PUSHER_NAMING) | TO(PUSHER_SEALED) | TO(PUSHER_STOPPED)},
    [PUSHER_NAMING] = {"naming", TO(PUSHER_ARMED) | TO(PUSHER_STOPPED)},
    [PUSHER_SEALED] = {"sealed", TO(PUSHER_PUSHING) | TO(PUSHER_RESUMING) | TO(PUSHER_STOPPED)},
    [PUSHER_PUSHING] = {"pushing", TO(PUSHER_SENT) | TO(PUSHER_RESUMING) | TO(PUSHER_STOPPED)},
    [PUSHER_SENT] = {"sent", TO(PUSHER_RESUMING) | TO(PUSHER_STOPPED)},
    [PUSHER_RESUMING] = {"resuming", TO(PUSHER_PUSHING) | TO(PUSHER_STOPPED)},
    [PUSHER_STOPPED] = {"stopped", 0},
};

struct pusher {
    struct pusher_options options;
    enum pusher_state state;
    struct sender *sender;
    struct loop_timer *timer, *ticker;
    struct bitmap named;     /* stale pages the destination knows of */
    struct bitmap scratch;   /* a set being sent */
    struct bitmap pushing;   /* what the push under way may take; lent to the sender */
    _Atomic uint64_t *taken; /* sent since the last resume, whichever way */
    uint32_t calls;          /* of naming, not answered yet */
    uint32_t attempt;        /* number of the resume; replies to older ones do not count */
    size_t asked_word;       /* missing pages are known up to here */
    uint8_t key[SEAL_KEY_BYTES];
    struct pusher_stats stats;
    struct sieve sieve; /* of what is demanded */
    uint8_t packed[BATCH_BYTES_MAX];
};

static void pusher_move(struct pusher *p, enum pusher_state to)
{
    ENSURE(states[p->state].successors & TO(to));
    p->state = to;
    log_event(LOG_DEBUG, "push.state", "state=%s", states[to].name);
}

static void pusher_fail(struct pusher *p, const struct err *err)
{
    if (p->state != PUSHER_STOPPED)
        p->options.on_failed(p->options.user, err);
}

/* ---- before the switch ---- */

static void pusher_armed(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct pusher *p = user;
    (void)body, (void)len;
    if (p->state != PUSHER_ARMING)
        return;
    if (err) {
        pusher_fail(p, err);
        return;
    }
    pusher_move(p, PUSHER_ARMED);
    p->options.on_ready(p->options.user);
}

void pusher_arm(struct pusher *p)
{
    pusher_move(p, PUSHER_ARMING);
    Drover__EnginePostcopy request = DROVER__ENGINE_POSTCOPY__INIT;
    wire_call(p->options.peer, DROVER__ENGINE_METHOD__ENGINE_POSTCOPY, &request.base, CALL_MS, pusher_armed, p);
}

static void pusher_named(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct pusher *p = user;
    (void)body, (void)len;
    p->calls--;
    if (p->state >= PUSHER_PUSHING) /* the guest was handed over, so the destination had them all */
        return;
    if (err) {
        pusher_fail(p, err);
    } else if (p->state == PUSHER_NAMING && p->calls == 0) {
        pusher_move(p, PUSHER_ARMED);
        p->options.on_ready(p->options.user);
    }
}

/* One message: the part of [word, end) that is not empty. */
static void pusher_send_words(struct pusher *p, size_t word, size_t end, bool last)
{
    const uint64_t *words = p->scratch.words;
    while (word < end && words[word] == 0)
        word++;
    while (end > word && words[end - 1] == 0)
        end--;
    if (word == end && !last)
        return;
    uint8_t *bytes = mem_alloc((end - word + 1) * 8);
    bitmap_pack(words + word, end - word, bytes);
    Drover__EngineStale request = DROVER__ENGINE_STALE__INIT;
    request.first_page = word * 64;
    request.pages = (ProtobufCBinaryData){(end - word) * 8, bytes};
    request.last = last;
    p->calls++;
    wire_call(p->options.peer, DROVER__ENGINE_METHOD__ENGINE_STALE, &request.base, CALL_MS, pusher_named, p);
    free(bytes);
}

static void pusher_send_names(struct pusher *p, const struct bitmap *stale, bool last)
{
    size_t words = bitmap_words(stale), gap = 0;
    for (size_t i = 0; i < words; i++)
        p->scratch.words[i] = stale->words[i] & ~p->named.words[i];
    /* Scattered pages take long to free one by one. While the guest stands still, what lies between them is sent again
     * too, as far as that helps. */
    while (last && bitmap_close_gaps(&p->scratch, gap) > FREED_RUNS_MAX && gap < GAP_PAGES_MAX)
        gap = gap ? gap * 2 : 1;
    bitmap_add(&p->named, &p->scratch);
    for (size_t word = 0, end; word < words; word = end) {
        end = word + CHUNK_WORDS < words ? word + CHUNK_WORDS : words;
        pusher_send_words(p, word, end, last && end == words);
    }
}

void pusher_name(struct pusher *p, const struct bitmap *stale)
{
    pusher_move(p, PUSHER_NAMING);
    p->calls++; /* holds the state until all are sent */
    pusher_send_names(p, stale, false);
    Drover__EngineStale end = DROVER__ENGINE_STALE__INIT; /* empty: answered when those before it are done */
    wire_call(p->options.peer, DROVER__ENGINE_METHOD__ENGINE_STALE, &end.base, CALL_MS, pusher_named, p);
}

void pusher_seal(struct pusher *p, const struct bitmap *stale)
{
    pusher_send_names(p, stale, true);
    pusher_move(p, PUSHER_SEALED);
    p->stats.stale_pages = bitmap_count(&p->named);
}

void pusher_inherit(struct pusher *p)
{
    bitmap_set_range(&p->named, 0, p->named.bits);
    pusher_move(p, PUSHER_SEALED);
}

/* ---- demands ---- */

/* Reads, packs and sends pages. What cannot be sent now is left to the push; it is asked for again. */
static void pusher_send_pages(struct pusher *p, const uint32_t *pages, size_t count)
{
    struct err err;
    uint8_t content[PAGE_BYTES];
    sieve_begin(&p->sieve);
    for (size_t i = 0; i < count; i++) {
        if (ram_read(&p->options.side->ram, pages[i], 1, &err, content) < 0) {
            log_event(LOG_ERROR, "page.unread", "page=%u message=%s", pages[i], LOG_QUOTE(err.message));
            return;
        }
        sieve_add(&p->sieve, pages[i], content);
    }
    Drover__EnginePages note = DROVER__ENGINE_PAGES__INIT;
    note.batch = (ProtobufCBinaryData){sieve_finish(&p->sieve, p->packed), p->packed};
    if (wire_note(p->options.peer, DROVER__ENGINE_METHOD__ENGINE_PAGES, &note.base, &err) < 0) {
        log_event(LOG_DEBUG, "pages.unsent", "message=%s", LOG_QUOTE(err.message));
        return;
    }
    for (size_t i = 0; i < count; i++)
        atomic_fetch_or(&p->taken[pages[i] / 64], UINT64_C(1) << (pages[i] % 64));
    p->stats.demanded_pages += count;
    p->stats.demanded_wire_bytes += note.batch.len;
}

void pusher_on_demand(struct pusher *p, const uint8_t *body, size_t len)
{
    if (p->state < PUSHER_SEALED || p->state == PUSHER_STOPPED)
        return;
    Drover__EngineDemand *demand = BOUNDED_UNPACK(engine_demand, body, len);
    size_t count = demand && demand->n_pages <= DEMANDS_MAX ? demand->n_pages : 0;
    for (size_t i = 0; i < count;) {
        uint32_t pages[BATCH_FULL_PAGES];
        size_t known = 0;
        for (; i < count && known < BATCH_FULL_PAGES; i++)
            if (demand->pages[i] < p->named.bits && bitmap_test(&p->named, demand->pages[i]))
                pages[known++] = demand->pages[i];
        if (known > 0)
            pusher_send_pages(p, pages, known);
    }
    drover__engine_demand__free_unpacked(demand, NULL);
}

/* ---- pushing ---- */

/* What nobody has sent yet. */
static void pusher_tell(void *user)
{
    struct pusher *p = user;
    uint64_t pages = 0;
    for (size_t i = 0; p->state == PUSHER_PUSHING && i < bitmap_words(&p->pushing); i++)
        pages += (uint64_t)__builtin_popcountll(p->pushing.words[i] & ~atomic_load(&p->taken[i]));
    control_event(p->options.side->control, "progress",
        json_pack("{s:I}", "remaining_bytes", (json_int_t)(pages * PAGE_BYTES)), true);
}

static void pusher_begin(struct pusher *p)
{
    loop_timer_stop(p->timer);
    pusher_move(p, PUSHER_PUSHING);
    pusher_tell(p);
    loop_timer_start(p->ticker, TICK_MS, TICK_MS);
    sender_push(p->sender, &p->pushing, p->taken, WINDOW_BYTES / p->options.side->options->stripes);
}

void pusher_push(struct pusher *p, struct sender *sender)
{
    p->sender = sender;
    if (!sender) {
        struct err err;
        err_set(&err, ERR_UNAVAILABLE, "no connection yet");
        pusher_on_lost(p, &err);
        return;
    }
    bitmap_clear(&p->pushing);
    bitmap_add(&p->pushing, &p->named);
    pusher_begin(p);
}

static void pusher_count(struct pusher *p, const struct sender_stats *stats)
{
    struct sender_stats *sum = &p->stats.pushed;
    sum->pages += stats->pages;
    classes_add(&sum->classes, &stats->classes);
    sum->raw_bytes += stats->raw_bytes;
    sum->wire_bytes += stats->wire_bytes;
    sum->duration_ns += stats->duration_ns;
}

static void pusher_close_sender(struct pusher *p)
{
    struct sender_stats unfinished;
    sender_close(p->sender, &unfinished);
    p->sender = NULL;
    pusher_count(p, &unfinished);
}

void pusher_on_pass(void *user, const struct sender_stats *stats)
{
    struct pusher *p = user;
    pusher_count(p, stats);
    if (p->state != PUSHER_PUSHING)
        return;
    pusher_move(p, PUSHER_SENT);
    loop_timer_stop(p->ticker);
    pusher_tell(p);
    loop_timer_start(p->timer, SENT_MS, 0);
}

/* ---- resuming ---- */

static void pusher_again(struct pusher *p, const struct err *err)
{
    log_event(LOG_INFO, "push.unresumed", "message=%s", LOG_QUOTE(err->message));
    loop_timer_start(p->timer, AGAIN_MS, 0);
}

struct resume_call {
    struct pusher *pusher;
    uint32_t attempt;
};

/* Whose call was answered; NULL: it was of an earlier resume. Takes the call. */
static struct pusher *pusher_answered(struct resume_call *call)
{
    struct pusher *p = call->pusher;
    bool expected = p->state == PUSHER_RESUMING && p->attempt == call->attempt;
    free(call);
    return expected ? p : NULL;
}

static void pusher_call(struct pusher *p, uint32_t method, const ProtobufCMessage *request, wire_reply_fn fn)
{
    struct resume_call *call = mem_zalloc(sizeof *call);
    *call = (struct resume_call){p, p->attempt};
    wire_call(p->options.peer, method, request, CALL_MS, fn, call);
}

static void pusher_ask_missing(struct pusher *p);

static int pusher_take_missing(struct pusher *p, const uint8_t *body, size_t len, struct err *err)
{
    Drover__EngineMissingReply *reply = BOUNDED_UNPACK(engine_missing_reply, body, len);
    size_t count = reply ? reply->pages.len / 8 : 0;
    if (count == 0 || reply->pages.len % 8 || count > bitmap_words(&p->pushing) - p->asked_word) {
        drover__engine_missing_reply__free_unpacked(reply, NULL);
        return err_set(err, ERR_PROTOCOL, "the destination's missing pages make no sense");
    }
    bitmap_unpack(reply->pages.data, count, p->pushing.words + p->asked_word);
    drover__engine_missing_reply__free_unpacked(reply, NULL);
    p->asked_word += count;
    return 0;
}

static void pusher_missing(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct pusher *p = pusher_answered(user);
    struct err why;
    if (!p)
        return;
    if (err || pusher_take_missing(p, body, len, &why) < 0) {
        pusher_again(p, err ? err : &why);
        return;
    }
    if (p->asked_word < bitmap_words(&p->pushing)) {
        pusher_ask_missing(p);
        return;
    }
    /* Only pages named stale, whatever the destination says. A page demanded since the question is sent twice at most.
     */
    for (size_t i = 0; i < bitmap_words(&p->pushing); i++) {
        p->pushing.words[i] &= p->named.words[i];
        atomic_store(&p->taken[i], 0);
    }
    log_event(LOG_INFO, "push.resumed", "missing_pages=%zu", bitmap_count(&p->pushing));
    pusher_begin(p);
}

static void pusher_ask_missing(struct pusher *p)
{
    Drover__EngineMissing request = DROVER__ENGINE_MISSING__INIT;
    request.first_page = p->asked_word * 64;
    pusher_call(p, DROVER__ENGINE_METHOD__ENGINE_MISSING, &request.base, pusher_missing);
}

static int pusher_open_sender(struct pusher *p, const Drover__EngineResumeReply *reply, struct err *err)
{
    uint64_t stripes = p->options.side->options->stripes;
    if (reply->n_bulk_addresses != stripes || reply->window_bytes == 0)
        return err_set(err, ERR_PROTOCOL, "the destination offers %zu stripes", reply->n_bulk_addresses);
    quota_limit(&p->options.side->quota, QUOTA_THERE, reply->bandwidth_bytes_per_s);
    struct sender_options options = {
        .ram = &p->options.side->ram,
        .key = p->key,
        .addresses = (const char *const *)reply->bulk_addresses,
        .stripes = (uint32_t)stripes,
        .window_bytes = reply->window_bytes,
        .quota = &p->options.side->quota,
        .on_pass = pusher_on_pass,
        .on_failed = pusher_on_lost,
        .user = p,
    };
    return sender_open(&p->options.side->loop, &options, err, &p->sender);
}

static void pusher_welcomed(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct pusher *p = pusher_answered(user);
    struct err why;
    if (!p)
        return;
    Drover__EngineResumeReply *reply = err ? NULL : BOUNDED_UNPACK(engine_resume_reply, body, len);
    int rc = err      ? err_set(&why, err->code, "%s", err->message)
             : !reply ? err_set(&why, ERR_PROTOCOL, "the destination's welcome makes no sense")
                      : pusher_open_sender(p, reply, &why);
    drover__engine_resume_reply__free_unpacked(reply, NULL);
    if (rc < 0) {
        pusher_again(p, &why);
        return;
    }
    p->asked_word = 0;
    pusher_ask_missing(p);
}

static void pusher_resume(struct pusher *p)
{
    p->attempt++;
    p->stats.resumes++;
    pusher_close_sender(p);
    seal_make_key(p->key);
    Drover__EngineResume request = DROVER__ENGINE_RESUME__INIT;
    request.migration_id = p->options.side->options->migration_id;
    request.bulk_key = (ProtobufCBinaryData){sizeof p->key, p->key};
    /* The call waits for the connection by itself. */
    pusher_call(p, DROVER__ENGINE_METHOD__ENGINE_RESUME, &request.base, pusher_welcomed);
}

void pusher_on_lost(void *user, const struct err *err)
{
    struct pusher *p = user;
    if (p->state < PUSHER_SEALED || p->state == PUSHER_STOPPED)
        return;
    log_event(LOG_WARN, "push.lost", "message=%s", LOG_QUOTE(err->message));
    if (p->state != PUSHER_RESUMING)
        pusher_move(p, PUSHER_RESUMING);
    loop_timer_stop(p->ticker);
    loop_timer_stop(p->timer);
    pusher_resume(p);
}

static void pusher_on_timer(void *user)
{
    struct pusher *p = user;
    struct err err;
    if (p->state == PUSHER_SENT) {
        err_set(&err, ERR_TIMEOUT, "all is sent, but the destination misses something");
        pusher_on_lost(p, &err);
    } else if (p->state == PUSHER_RESUMING) {
        pusher_resume(p);
    }
}

/* ---- life ---- */

struct pusher *pusher_new(const struct pusher_options *options)
{
    struct pusher *p = mem_zalloc(sizeof *p);
    p->options = *options;
    p->named = bitmap_new(options->side->ram.pages);
    p->scratch = bitmap_new(options->side->ram.pages);
    p->pushing = bitmap_new(options->side->ram.pages);
    p->taken = mem_zalloc(bitmap_words(&p->named) * sizeof *p->taken);
    p->timer = loop_timer_new(&options->side->loop, pusher_on_timer, p);
    p->ticker = loop_timer_new(&options->side->loop, pusher_tell, p);
    return p;
}

void pusher_stats(const struct pusher *p, struct pusher_stats *out)
{
    *out = p->stats;
}

void pusher_stop(struct pusher *p)
{
    if (!p || p->state == PUSHER_STOPPED)
        return;
    pusher_move(p, PUSHER_STOPPED);
    pusher_close_sender(p);
    loop_timer_free(p->timer);
    loop_timer_free(p->ticker);
    p->timer = p->ticker = NULL;
}

void pusher_free(struct pusher *p)
{
    if (!p)
        return;
    pusher_stop(p);
    bitmap_free(&p->named);
    bitmap_free(&p->scratch);
    bitmap_free(&p->pushing);
    free(p->taken);
    key_wipe(p->key, sizeof p->key);
    free(p);
}
