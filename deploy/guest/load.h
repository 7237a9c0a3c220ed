/* The loads a guest can run: CPU burn, memory dirtier, disk writer, client of a store. Each keeps what it does
 * checkable.
 *
 * A pattern is a function of (where, version): every page or block that a load writes is filled from its index and a
 * version number that is kept elsewhere. So a check finds not only damage, but also a page that is intact and *old*:
 * one write that a migration lost.
 *
 * One thread per load, started on first use; load_*() may be called from any thread and replaces what the load did
 * before. */
#ifndef GUEST_LOAD_H
#define GUEST_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#define PATTERN_BYTES 4096

/* What a check found. */
struct check {
    uint64_t units;   /* pages or blocks looked at */
    uint64_t corrupt; /* of them: damaged or old; sticky, counts what the load itself noticed before rewriting, too */
};

/* Fills one page: `random_percent` of its words do not compress. Never all zero. */
void pattern_fill(uint64_t *page, uint64_t index, uint64_t version, unsigned random_percent);
bool pattern_matches(const uint64_t *page, uint64_t index, uint64_t version, unsigned random_percent);

/* Burns `percent` of every virtual CPU; 0 stops. */
void load_cpu(unsigned percent);

/* Which page of the working set is next. */
enum load_order {
    ORDER_RANDOM,     /* any, all alike */
    ORDER_SEQUENTIAL, /* one after the other, round and round */
    ORDER_ZIPF,       /* the k-th most wanted page 1/k as often as the first; the wanted ones lie scattered */
};

/* Rewrites `pages_per_s` pages of a working set of `bytes`; every page is checked before it is rewritten. 0
 * bytes: gives the memory back. Returns NULL when the set is filled and the load runs, or what is wrong. */
const char *load_memory(unsigned pages_per_s, uint64_t bytes, unsigned random_percent, enum load_order order);
/* Looks at the whole working set, while the load goes on. */
struct check load_memory_check(void);

/* Writes `blocks_per_s` random blocks of /dev/vda past the page cache, 0 stops. As load_memory. */
const char *load_disk(unsigned blocks_per_s);
/* Reads back every block written since boot. */
struct check load_disk_check(void);

/* Reads `runs_per_s` random runs of 64 blocks of /dev/vda past the page cache into buffers that are checked, 0 stops.
 * As load_memory. */
const char *load_read(unsigned runs_per_s);
/* Looks at what the buffers hold. */
struct check load_read_check(void);

/* Reads, checks and rewrites random ones of `values` values (4 KiB each) in the guest's redis, so many times a second;
 * 0 stops. As load_memory. */
const char *load_store(unsigned operations_per_s, uint64_t values);
/* Reads back every value. */
struct check load_store_check(void);

/* The work that all loads have done since boot: pages, blocks and values written, and for the CPU burner turns of a
 * short loop.
 */
void work_done(uint64_t units);
uint64_t work_total(void);

/* CLOCK_MONOTONIC. */
uint64_t now_ns(void);
/* Sleeps until `*next` and moves it one `period_ns` on; a pause of the guest is not caught up with. */
void tick_wait(uint64_t *next, uint64_t period_ns);

#endif
