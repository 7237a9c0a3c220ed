/* Memory dirtier. The lock is held for one page at a time by the dirtier and for a small run of pages by a check, so
 * that both make progress whatever the other does. */
#include "load.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#define TICK_NS         10000000ULL
#define CHECK_RUN_PAGES 64
#define HEADROOM_BYTES  (12ULL << 20) /* left to the kernel and to the services */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all of `set` */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    uint64_t *pages;
    uint32_t *versions;
    uint64_t count;
    unsigned rate;
    unsigned random_percent;
    uint64_t corrupt;
    bool thread;
} set;

static uint64_t *page_at(uint64_t index)
{
    return set.pages + index * (PATTERN_BYTES / sizeof(uint64_t));
}

static void rewrite(uint64_t index)
{
    if (!pattern_matches(page_at(index), index, set.versions[index], set.random_percent)) {
        set.corrupt++;
    }
    set.versions[index]++;
    pattern_fill(page_at(index), index, set.versions[index], set.random_percent);
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *dirtier(void *unused)
{
    (void)unused;
    uint64_t random = now_ns() | 1;
    uint64_t next = now_ns();
    double due = 0;

    for (;;) {
        pthread_mutex_lock(&lock);
        while (set.count == 0 || set.rate == 0) {
            pthread_cond_wait(&changed, &lock);
            next = now_ns();
        }
        due += (double)set.rate * TICK_NS / 1e9;
        pthread_mutex_unlock(&lock);

        for (; due >= 1; due--) {
            pthread_mutex_lock(&lock);
            if (set.count > 0) {
                rewrite(random_next(&random) % set.count);
            }
            pthread_mutex_unlock(&lock);
        }
        tick_wait(&next, TICK_NS);
    }
    return NULL;
}

static void release(void)
{
    if (set.count > 0) {
        munmap(set.pages, set.count * PATTERN_BYTES);
        free(set.versions);
    }
    set.pages = NULL;
    set.versions = NULL;
    set.count = 0;
}

const char *load_memory(unsigned pages_per_s, uint64_t bytes, unsigned random_percent)
{
    const char *problem = NULL;
    struct sysinfo info;

    pthread_mutex_lock(&lock);
    release();
    set.rate = pages_per_s;
    set.random_percent = random_percent;
    uint64_t count = bytes / PATTERN_BYTES;
    if (count == 0) {
        goto out;
    }
    if (sysinfo(&info) != 0 || info.freeram * info.mem_unit < bytes + HEADROOM_BYTES) {
        problem = "the guest has not that much free memory";
        goto out;
    }
    void *pages = mmap(NULL, count * PATTERN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t *versions = calloc(count, sizeof(*versions));
    if (pages == MAP_FAILED || versions == NULL) {
        if (pages != MAP_FAILED) {
            munmap(pages, count * PATTERN_BYTES);
        }
        free(versions);
        problem = "out of memory";
        goto out;
    }
    set.pages = pages;
    set.versions = versions;
    for (uint64_t i = 0; i < count; i++) {
        pattern_fill(page_at(i), i, 0, random_percent);
    }
    set.count = count;
    if (!set.thread) {
        pthread_t thread;
        set.thread = pthread_create(&thread, NULL, dirtier, NULL) == 0;
    }
    pthread_cond_broadcast(&changed);
out:
    pthread_mutex_unlock(&lock);
    return problem;
}

struct check load_memory_check(void)
{
    struct check check = {0};

    for (bool more = true; more;) {
        pthread_mutex_lock(&lock);
        for (unsigned run = 0; run < CHECK_RUN_PAGES && check.units < set.count; run++, check.units++) {
            if (!pattern_matches(page_at(check.units), check.units, set.versions[check.units], set.random_percent)) {
                check.corrupt++;
            }
        }
        more = check.units < set.count;
        if (!more) {
            check.corrupt += set.corrupt;
        }
        pthread_mutex_unlock(&lock);
    }
    return check;
}
