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
#define SCATTER_PRIME   2654435761ULL /* greater than any number of pages, so that no two ranks get the same page */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all of `set` */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
    uint64_t *pages;
    uint32_t *versions;
    uint64_t count;
    unsigned rate;
    unsigned random_percent;
    enum load_order order;
    uint64_t place;    /* sequential: the next page */
    uint32_t *chances; /* zipf: [k] is how many of 2^32 throws pick rank k or one before it; else NULL */
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

/* Ranks with a probability of 1/k each, as a table to search in: a throw costs no arithmetic that TCG is slow at. */
static uint32_t *zipf_table(uint64_t count)
{
    uint32_t *chances = malloc(count * sizeof(*chances));
    double whole = 0, sum = 0;

    for (uint64_t k = 1; k <= count; k++) {
        whole += 1.0 / (double)k;
    }
    for (uint64_t k = 1; chances != NULL && k <= count; k++) {
        sum += 1.0 / (double)k;
        chances[k - 1] = (uint32_t)(sum / whole * (double)UINT32_MAX);
    }
    return chances;
}

static uint64_t zipf_rank(uint32_t thrown)
{
    uint64_t low = 0, high = set.count - 1;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (set.chances[middle] < thrown) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint64_t page_next(uint64_t *random)
{
    switch (set.order) {
    case ORDER_SEQUENTIAL:
        set.place = (set.place + 1) % set.count;
        return set.place;
    case ORDER_ZIPF:
        return zipf_rank((uint32_t)(random_next(random) >> 16)) * SCATTER_PRIME % set.count;
    default:
        return random_next(random) % set.count;
    }
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
                rewrite(page_next(&random));
                work_done(1);
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
        free(set.chances);
    }
    set.pages = NULL;
    set.versions = NULL;
    set.chances = NULL;
    set.count = set.place = 0;
}

const char *load_memory(unsigned pages_per_s, uint64_t bytes, unsigned random_percent, enum load_order order)
{
    const char *problem = NULL;
    struct sysinfo info;

    pthread_mutex_lock(&lock);
    release();
    set.rate = pages_per_s;
    set.random_percent = random_percent;
    set.order = order;
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
    uint32_t *chances = order == ORDER_ZIPF ? zipf_table(count) : NULL;
    if (pages == MAP_FAILED || versions == NULL || (order == ORDER_ZIPF && chances == NULL)) {
        if (pages != MAP_FAILED) {
            munmap(pages, count * PATTERN_BYTES);
        }
        free(versions);
        free(chances);
        problem = "out of memory";
        goto out;
    }
    set.pages = pages;
    set.versions = versions;
    set.chances = chances;
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
