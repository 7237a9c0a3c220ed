#include "migrate/survey.h"

#include <dirent.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/linkspeed.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"

#define FIRST_MS 5u
/* 2 MiB: takes 3-5 ms to read and pack, and tells a share to within a few percent. */
#define SAMPLE_PAGES 512u
#define RUN_BYTES    (64u * PAGE_BYTES) /* packed together, as a worker would */

struct survey {
    struct survey_options options;
    struct loop_timer *timer;
    struct bitmap written;
    struct forecast_input input;
    uint64_t began_ns, next_ms, busiest_ns;
};

/* ---- the sample ---- */

struct tally {
    uint64_t pages, full, packed_bytes, ns;
    uint32_t held; /* of `data`, bytes */
    uint8_t data[RUN_BYTES];
    char packed[LZ4_COMPRESSBOUND(RUN_BYTES)];
};

static void tally_pack(struct tally *t)
{
    int packed = t->held ? LZ4_compress_default((const char *)t->data, t->packed, (int)t->held, sizeof t->packed) : 0;
    t->packed_bytes += packed > 0 && (uint32_t)packed < t->held ? (uint32_t)packed : t->held;
    t->held = 0;
}

static int tally_page(struct tally *t, const struct ram *ram, size_t page, struct err *err)
{
    uint8_t *to = t->data + t->held;
    if (ram_read(ram, page, 1, err, to) < 0)
        return -1;
    t->pages++;
    if (page_is_zero(to))
        return 0;
    t->full++;
    t->held += PAGE_BYTES;
    if (t->held == sizeof t->data)
        tally_pack(t);
    return 0;
}

/* Takes runs of pages as a worker would meet them, evenly spread over what is allocated. */
static int take_sample(const struct survey *s, struct tally *t, struct err *err)
{
    const struct bitmap *allocated = s->options.allocated;
    size_t words = bitmap_words(allocated), full = 0, seen = 0;
    for (size_t i = 0; i < words; i++)
        full += allocated->words[i] != 0;
    size_t every = full / (SAMPLE_PAGES / 16) + 1;
    for (size_t i = 0; i < words && t->pages < SAMPLE_PAGES; i++) {
        if (!allocated->words[i] || seen++ % every)
            continue;
        size_t taken = 0;
        for (size_t page = i * 64; page < i * 64 + 64 && taken < 16; page++)
            if (bitmap_test(allocated, page) && ++taken && tally_page(t, s->options.ram, page, err) < 0)
                return -1;
    }
    tally_pack(t);
    return 0;
}

static int survey_sample(struct survey *s, struct err *err)
{
    struct tally *t = mem_zalloc(sizeof *t);
    struct timespec began,
        ended; /* of this thread's CPU time: in a few ms, waiting for a processor would be most of it */
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &began);
    int rc = take_sample(s, t, err);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    double us = (double)(ended.tv_sec - began.tv_sec) * 1e6 + (double)(ended.tv_nsec - began.tv_nsec) / 1000;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t stripes = s->options.options->stripes;
    double workers = cores > 0 && (uint64_t)cores < stripes ? (double)cores : (double)stripes;
    struct forecast_sample *sample = &s->input.sample;
    *sample = (struct forecast_sample){.full_share = 1, .packed_share = 1};
    if (t->pages)
        sample->full_share = (double)t->full / (double)t->pages;
    if (t->full) {
        sample->packed_share = (double)t->packed_bytes / (double)(t->full * PAGE_BYTES);
        sample->raw_bytes_per_us = (double)(t->full * PAGE_BYTES) / (us > 0 ? us : 1) * workers;
    }
    free(t);
    return rc;
}

/* ---- the guest's CPU time ---- */

/* CPU time of the thread that has had most; the same thread stays ahead over a window this short, or nearly so. */
static uint64_t busiest_ns(const char *directory)
{
    DIR *tasks = opendir(directory);
    uint64_t most = 0, ns;
    for (const struct dirent *task; tasks && (task = readdir(tasks));) {
        char path[320], text[96];
        snprintf(path, sizeof path, "%s/%s/schedstat", directory, task->d_name);
        cleanup_file FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (file && fgets(text, sizeof text, file) && sscanf(text, "%" SCNu64, &ns) == 1 && ns > most)
            most = ns;
    }
    if (tasks)
        closedir(tasks);
    return most;
}

static uint64_t survey_busiest_ns(const struct survey *s)
{
    char directory[48];
    snprintf(directory, sizeof directory, "/proc/%" PRIu64 "/task", s->options.options->qemu_pid);
    return busiest_ns(directory);
}

/* ---- the curve ---- */

static void survey_end(struct survey *s, const struct err *err)
{
    loop_timer_stop(s->timer);
    s->options.on_done(s->options.user, err);
}

static void survey_look(void *user)
{
    struct survey *s = user;
    struct err err;
    struct forecast_input *in = &s->input;
    if (!s->options.tracker) {
        survey_end(s, NULL);
        return;
    }
    if (tracker_scan(s->options.tracker, &err, &s->written) < 0) {
        survey_end(s, &err);
        return;
    }
    uint64_t us = (clock_now_ns() - s->began_ns) / 1000;
    in->cpu_share = (double)(survey_busiest_ns(s) - s->busiest_ns) / 1000 / (double)us;
    in->curve[in->points++] = (struct forecast_point){us, bitmap_count(&s->written)};
    /* One point alone may have caught a quiet moment. */
    bool clear = in->points > 1 && !s->options.whole && forecast_clear(in);
    s->next_ms *= 2;
    if (clear || s->next_ms > s->options.longest_ms || in->points == FORECAST_POINTS_MAX - 1)
        survey_end(s, NULL);
    else
        loop_timer_start(s->timer, s->next_ms > us / 1000 ? s->next_ms - us / 1000 : 1, 0);
}

struct survey *survey_start(uv_loop_t *loop, const struct survey_options *options)
{
    struct survey *s = mem_zalloc(sizeof *s);
    struct err err;
    s->options = *options;
    s->began_ns = clock_now_ns();
    s->busiest_ns = survey_busiest_ns(s);
    s->next_ms = FIRST_MS;
    s->written = bitmap_new(options->ram->pages);
    s->input.chosen = options->chosen;
    s->input.limits = options->limits;
    s->input.allocated_pages = bitmap_count(options->allocated);
    s->input.way = (struct forecast_way){
        .last_wire = options->options->last_wire,
        .last_raw = options->options->last_raw,
        .last_pace = options->options->last_pace,
        .link = linkspeed_to(options->options->connect),
        .limit = options->bytes_per_s,
    };
    if (survey_sample(s, &err) < 0) /* the forecast is poorer then; that pages cannot be read will show by itself */
        log_event(LOG_WARN, "survey.unsampled", "message=%s", LOG_QUOTE(err.message));
    s->options.allocated = NULL;
    s->timer = loop_timer_new(loop, survey_look, s);
    loop_timer_start(s->timer, options->tracker ? FIRST_MS : 0, 0);
    return s;
}

const struct forecast_input *survey_input(const struct survey *s)
{
    return &s->input;
}

const struct bitmap *survey_written(const struct survey *s)
{
    return &s->written;
}

void survey_free(struct survey *s)
{
    if (!s)
        return;
    loop_timer_free(s->timer);
    bitmap_free(&s->written);
    free(s);
}
