/* sender: the source's worker threads, one a stripe. Each takes pages of the current pass, reads, packs and seals them
 * and sends them on its own connection, never having more unacknowledged bytes under way than the receiver's window.
 *
 *   sender_pass(pages) -> [workers] -> on_pass(stats)     when the receiver has applied and acknowledged everything
 *
 * What each page becomes is the sieve's business. Bandwidth and "pass over" come from acknowledgements, never from
 * local sends; one that acknowledges no more than the one before says that the receiver is at work. Failure (receiver
 * silent for SENDER_SILENCE_MS, RAM unreadable) stops all workers and is told once through on_failed. Memory: per
 * stripe a batch, room for one packed, and the window. Callbacks come on the loop's thread. */
#ifndef MIGRATE_SENDER_H
#define MIGRATE_SENDER_H

#include <stdatomic.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "migrate/bitmap.h"
#include "migrate/classes.h"
#include "migrate/copies.h"
#include "migrate/digest.h"
#include "migrate/offer.h"
#include "migrate/quota.h"
#include "migrate/ram.h"
#include "migrate/seal.h"

#define SENDER_STRIPES_MAX 16u
#define SENDER_SILENCE_MS  10000u

struct sender;

struct sender_stats {
    uint64_t pages;     /* looked at */
    uint64_t raw_bytes; /* of those that held something the destination had not */
    uint64_t wire_bytes, duration_ns;
    struct classes classes;
};

struct sender_options {
    const struct ram *ram;        /* lent */
    const uint8_t *key;           /* SEAL_KEY_BYTES, copied */
    const char *const *addresses; /* of the stripes; read while sender_open() runs, and not kept */
    uint32_t stripes;
    uint64_t window_bytes;
    struct quota *quota; /* lent; NULL: not limited */
    /* For sender_pass(), see sieve.h; lent: */
    struct digests *digests;
    struct copies *copies;
    bool silent;
    const struct offer *offer; /* NULL: nothing is; may be filled until the first pass */
    uint64_t silence_ms;       /* 0: SENDER_SILENCE_MS; tests have no time */
    bool thorough;             /* bytes are dear, whatever the workers find; false: they find out */
    /* In sender_pass(), on a worker's thread: it is about to read pages of [first, first + pages), multiples of 64,
     * which are its alone. May be NULL. */
    int (*before_read)(void *user, size_t first, size_t pages, struct err *err);
    void (*on_pass)(void *user, const struct sender_stats *stats);
    void (*on_failed)(void *user, const struct err *err);
    void *user;
};

/* Take: sender_close(). */
MUST_CHECK int sender_open(uv_loop_t *loop, const struct sender_options *options, struct err *err, struct sender **out);
/* Sends the pages of `pages`, which is lent and must not change until on_pass. One pass at a time. */
void sender_pass(struct sender *sender, const struct bitmap *pages);
/* The same in post-copy: pages travel in any order and at most once. A page of `taken` is left out, and a page that a
 * worker takes is added to it; the owner may add pages at any time, e.g. those it sends in another way. `window_bytes`
 * replaces the receiver's: what is under way delays what is sent beside it. */
void sender_push(struct sender *sender, const struct bitmap *pages, _Atomic uint64_t *taken, uint64_t window_bytes);
/* Stops the workers, wherever they are, and frees. `unfinished` (may be NULL) gets what a pass that is not over has
 * sent. No callback comes any more. NULL is fine. */
void sender_close(struct sender *sender, struct sender_stats *unfinished);

#endif
