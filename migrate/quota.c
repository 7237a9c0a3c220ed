#include "migrate/quota.h"

#include <time.h>

#include "base/clock.h"
#include "proto/limits.h"

#define MS UINT64_C(1000000)
/* Waking up late by some milliseconds, as a busy machine does, must not cost bandwidth. One message is paid back
 * whatever it takes. */
#define LINK_BURST_NS (10 * MS)
#define LINK_DEBT_NS  UINT64_MAX
/* A few rounds of a guest that writes little take no longer than without a quota; and what was used while nothing was
 * paced is not paid for by standing still. */
#define CPU_BURST_NS (100 * MS)
#define CPU_DEBT_NS  (200 * MS)
/* In pieces: a rest may end any moment. */
#define REST_NS (5 * MS)

void quota_init(struct quota *q)
{
    *q = (struct quota){.link = {.burst_ns = LINK_BURST_NS, .debt_ns = LINK_DEBT_NS},
        .cpu = {.burst_ns = CPU_BURST_NS, .debt_ns = CPU_DEBT_NS},
        .lock = PTHREAD_MUTEX_INITIALIZER};
}

bool quota_limit(struct quota *q, enum quota_limit which, uint64_t bytes_per_s)
{
    uint64_t least = 0;
    q->limits[which] = bytes_per_s < LIMITS_BYTES_PER_S ? bytes_per_s : LIMITS_BYTES_PER_S;
    for (size_t i = 0; i < QUOTA_LIMITS; i++)
        if (q->limits[i] && (!least || q->limits[i] < least))
            least = q->limits[i];
    return atomic_exchange(&q->bytes_per_s, least) != least;
}

void quota_cpu(struct quota *q, uint64_t millicores)
{
    atomic_store(&q->cpu_ns_per_s, millicores * MS);
}

void quota_urgent(struct quota *q, bool urgent)
{
    atomic_store(&q->urgent, urgent);
}

uint64_t quota_bytes_per_s(const struct quota *q)
{
    return atomic_load(&q->bytes_per_s);
}

uint64_t quota_millicores(const struct quota *q)
{
    return atomic_load(&q->cpu_ns_per_s) / MS;
}

uint64_t quota_link_wait_ns(struct quota *q, uint64_t now_ns, uint64_t bytes)
{
    uint64_t per_s = atomic_load(&q->bytes_per_s);
    if (per_s == 0)
        return 0;
    pthread_mutex_lock(&q->lock);
    uint64_t wait = pace_wait_ns(&q->link, now_ns, per_s);
    if (wait == 0)
        pace_spend(&q->link, now_ns, per_s, bytes);
    pthread_mutex_unlock(&q->lock);
    return wait;
}

uint64_t quota_cpu_wait_ns(struct quota *q, uint64_t now_ns, uint64_t cpu_ns)
{
    uint64_t per_s = atomic_load(&q->cpu_ns_per_s);
    pthread_mutex_lock(&q->lock);
    if (cpu_ns > q->cpu_seen_ns) {
        pace_spend(&q->cpu, now_ns, per_s, cpu_ns - q->cpu_seen_ns);
        q->cpu_seen_ns = cpu_ns;
    }
    uint64_t wait = pace_wait_ns(&q->cpu, now_ns, per_s);
    pthread_mutex_unlock(&q->lock);
    return atomic_load(&q->urgent) ? 0 : wait;
}

uint64_t quota_rest_ns(struct quota *q)
{
    struct timespec used;
    if (atomic_load(&q->cpu_ns_per_s) == 0 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) < 0)
        return 0;
    uint64_t used_ns = (uint64_t)used.tv_sec * UINT64_C(1000000000) + (uint64_t)used.tv_nsec;
    uint64_t wait_ns = quota_cpu_wait_ns(q, clock_now_ns(), used_ns);
    return wait_ns < REST_NS ? wait_ns : REST_NS;
}
