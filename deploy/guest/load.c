/* Patterns, pacing and the CPU burner. */
#include "load.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define WORDS          (PATTERN_BYTES / sizeof(uint64_t))
#define BURN_PERIOD_NS 20000000ULL

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

void tick_wait(uint64_t *next, uint64_t period_ns)
{
    uint64_t now = now_ns();

    *next += period_ns;
    if (*next < now) {
        *next = now;
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(*next / 1000000000ULL), .tv_nsec = (long)(*next % 1000000000ULL)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static atomic_ullong work;

void work_done(uint64_t units)
{
    atomic_fetch_add_explicit(&work, units, memory_order_relaxed);
}

uint64_t work_total(void)
{
    return atomic_load_explicit(&work, memory_order_relaxed);
}

static uint64_t mixed(uint64_t index, uint64_t version)
{
    uint64_t seed = (index + 1) * 0x9e3779b97f4a7c15ULL ^ (version + 1) * 0xc2b2ae3d27d4eb4fULL;
    return seed | 1;
}

/* The words of a page: `random` of them from a generator, the rest repeat the seed, as structures and text repeat
 * themselves. */
static uint64_t word_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void pattern_fill(uint64_t *page, uint64_t index, uint64_t version, unsigned random_percent)
{
    uint64_t seed = mixed(index, version), state = seed;
    unsigned random = (unsigned)(WORDS * random_percent / 100), i;

    for (i = 0; i < random; i++) {
        page[i] = word_next(&state);
    }
    for (; i < WORDS; i++) {
        page[i] = seed;
    }
}

bool pattern_matches(const uint64_t *page, uint64_t index, uint64_t version, unsigned random_percent)
{
    uint64_t seed = mixed(index, version), state = seed, wrong = 0;
    unsigned random = (unsigned)(WORDS * random_percent / 100), i;

    for (i = 0; i < random; i++) {
        wrong |= page[i] ^ word_next(&state);
    }
    for (; i < WORDS; i++) {
        wrong |= page[i] ^ seed;
    }
    return wrong == 0;
}

static atomic_uint burn_percent;
static pthread_mutex_t burn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t burn_changed = PTHREAD_COND_INITIALIZER;

static void *burner(void *unused)
{
    (void)unused;
    uint64_t next = now_ns();

    for (;;) {
        unsigned percent = atomic_load(&burn_percent);
        if (percent == 0) {
            pthread_mutex_lock(&burn_lock);
            while (atomic_load(&burn_percent) == 0) {
                pthread_cond_wait(&burn_changed, &burn_lock);
            }
            pthread_mutex_unlock(&burn_lock);
            next = now_ns();
            continue;
        }
        uint64_t end = next + BURN_PERIOD_NS * percent / 100;
        while (now_ns() < end) {
            for (volatile unsigned spin = 0; spin < 2000; spin++) {
            }
            work_done(1);
        }
        tick_wait(&next, BURN_PERIOD_NS);
    }
    return NULL;
}

void load_cpu(unsigned percent)
{
    static bool started;

    pthread_mutex_lock(&burn_lock);
    atomic_store(&burn_percent, percent);
    if (!started && percent > 0) {
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        for (long i = 0; i < cpus; i++) {
            pthread_t thread;
            pthread_create(&thread, NULL, burner, NULL);
        }
        started = true;
    }
    pthread_cond_broadcast(&burn_changed);
    pthread_mutex_unlock(&burn_lock);
}
