/* filler: lets the guest run on the destination before all of its pages are there.
 *
 * QEMU's userfaultfd watches RAM for missing pages; a thread of ours takes each fault. A page that is stale (it is
 * still at the source) is wanted: its thread sleeps until filler_fill() brings it. Any other page that is missing is
 * zero.
 *
 *   filler_open -> filler_stale()* -> filler_seal -> [QEMU runs; filler_fill()*] -> on_complete -> filler_release
 *
 * Stale pages are made holes in the RAM file, and it is checked that they are. A page is put in place by UFFDIO_COPY:
 * content and mapping appear at once, the kernel refuses to replace a page that is there, and it wakes whoever waits.
 * Whoever faults while that happens finds the mapping, so no wake-up is lost.
 *
 * Nothing is ever let through: if the engine dies, a guest that needs a missing page stands still for good rather than
 * read zeros. Callbacks come on the loop's thread. */
#ifndef MIGRATE_FILLER_H
#define MIGRATE_FILLER_H

#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "base/err.h"
#include "migrate/latency.h"
#include "migrate/ram.h"

#define FILLER_WANTED_MAX 4096u /* a thread of QEMU waits for one page at a time */

struct filler;

struct filler_options {
    pid_t pid;                                            /* of QEMU */
    const struct ram *ram;                                /* lent */
    void (*on_wanted)(void *user);                        /* filler_take_wanted() has something new */
    void (*on_complete)(void *user);                      /* every stale page is here; once */
    void (*on_failed)(void *user, const struct err *err); /* faults are not seen any more; once */
    void *user;
};

struct filler_stats {
    uint64_t stale, zero_faults, late_copies; /* pages: named stale, zeros made on demand, copies that came too late */
    struct latency waits;                     /* from a fault to its page */
};

/* Watches RAM. ERR_UNSUPPORTED says what QEMU's userfaultfd lacks. Take: filler_close(). */
MUST_CHECK int filler_open(uv_loop_t *loop, const struct filler_options *options, struct err *err, struct filler **out);
/* The pages of `words` (bit 0: page 64 * index) are stale; frees them here. Bits beyond the end of RAM are an error. */
MUST_CHECK int filler_stale(struct filler *filler, size_t index, const uint64_t *words, size_t count, struct err *err);
/* All stale pages are named: QEMU may run. */
void filler_seal(struct filler *filler);
/* Puts pages in place that are stale and not here; others are left alone. `data` NULL: they are zero. Any thread. */
MUST_CHECK int filler_fill(struct filler *filler, size_t first, size_t count, const uint8_t *data, struct err *err);
/* Fills `out` with pages that are wanted; `again`: also those it gave out before. Returns how many. */
size_t filler_take_wanted(struct filler *filler, bool again, uint32_t out[static FILLER_WANTED_MAX]);
/* Copies which pages are missing, as in filler_stale(). */
void filler_missing(const struct filler *filler, size_t index, size_t count, uint64_t *words);
bool filler_complete(const struct filler *filler);
void filler_stats(struct filler *filler, struct filler_stats *out);
/* Stops watching: when all is complete, or when the guest never ran here and never will. */
void filler_release(struct filler *filler);
/* NULL is fine. */
void filler_close(struct filler *filler);

#endif
