/* quota: how much of the link and of the host's CPU time this engine may use. Set on the loop, kept by the workers, who
 * ask before each message. The link's quota is the least of three: what the migration was asked to keep to, this
 * host's share for it and the other host's.
 *
 * CPU time is that of the whole process; what is paced are the workers that read, pack, seal, open and write pages,
 * who use most of it. While the guest stands still, or is about to, nobody is paced by CPU time. */
#ifndef MIGRATE_QUOTA_H
#define MIGRATE_QUOTA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "migrate/pace.h"

enum quota_limit { QUOTA_ASKED, QUOTA_HERE, QUOTA_THERE, QUOTA_LIMITS };

struct quota {
    uint64_t limits[QUOTA_LIMITS]; /* bytes/s; 0: none */
    _Atomic uint64_t bytes_per_s;  /* the least of them */
    _Atomic uint64_t cpu_ns_per_s; /* CPU time a second; 0: not limited */
    atomic_bool urgent;            /* CPU time does not count now */
    pthread_mutex_t lock;          /* of what follows */
    struct pace link, cpu;
    uint64_t cpu_seen_ns;
};

void quota_init(struct quota *quota);
/* bytes/s, at most LIMITS_BYTES_PER_S; 0: none. True: the quota has changed. */
bool quota_limit(struct quota *quota, enum quota_limit which, uint64_t bytes_per_s);
/* Thousandths of a core; 0: not limited. */
void quota_cpu(struct quota *quota, uint64_t millicores);
void quota_urgent(struct quota *quota, bool urgent);
/* bytes/s; 0: not limited. */
uint64_t quota_bytes_per_s(const struct quota *quota);
uint64_t quota_millicores(const struct quota *quota);

/* Any thread. How long to wait until `bytes` may be sent; 0: send them, they are counted. */
uint64_t quota_link_wait_ns(struct quota *quota, uint64_t now_ns, uint64_t bytes);
/* Any thread. How long to rest, given the CPU time that the process has used so far; 0: go on. */
uint64_t quota_cpu_wait_ns(struct quota *quota, uint64_t now_ns, uint64_t cpu_ns);
/* The same by this process' clocks, in pieces of a few milliseconds: a rest may end any moment (quota_urgent()). */
uint64_t quota_rest_ns(struct quota *quota);

#endif
