/* receiver: the destination's worker threads, one a stripe. Each opens, checks and unpacks batches, writes their pages
 * into the RAM file and acknowledges the bytes it has applied: that is the sender's credit.
 *
 * What is not sealed with this migration's key, or out of order, is dropped and counted. A batch that is genuine but
 * senseless, or a RAM file that cannot be written, fails the migration: on_failed, once, on the loop's thread. */
#ifndef MIGRATE_RECEIVER_H
#define MIGRATE_RECEIVER_H

#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "migrate/digest.h"
#include "migrate/filler.h"
#include "migrate/image.h"
#include "migrate/quota.h"
#include "migrate/ram.h"

#define RECEIVER_WINDOW_BYTES (4u << 20) /* per stripe */

struct receiver;

struct receiver_options {
    const struct ram *ram; /* lent; what it holds is forgotten first, unless `filler` is set */
    struct filler *filler; /* lent; NULL: receiver_fill() comes later, or never */
    struct digests
        *digests; /* lent; told what each page holds, unless pages come through a filler; NULL: nobody asks */
    const struct image *image; /* lent; of the guest's last visit; NULL: nothing was offered */
    const uint8_t *key;        /* SEAL_KEY_BYTES, copied */
    const char *host;          /* IP to bind to */
    const char *from;          /* the source's IP; NULL: anyone may connect */
    uint32_t stripes;
    struct quota *quota; /* lent; of CPU time; NULL: not limited */
    void (*on_failed)(void *user, const struct err *err);
    void *user;
};

struct receiver_stats {
    uint64_t batches, pages, wire_bytes, dropped;
};

/* Take: receiver_close(). */
MUST_CHECK int receiver_open(
    uv_loop_t *loop, const struct receiver_options *options, struct err *err, struct receiver **out);
/* Where stripe `index` listens. Lent. */
const char *receiver_address(const struct receiver *receiver, uint32_t index);
/* From here on pages are put in place by `filler` (lent), because the guest may run any moment. */
void receiver_fill(struct receiver *receiver, struct filler *filler);
/* Stops the workers, fills `stats` (may be NULL) and frees. NULL is fine. */
void receiver_close(struct receiver *receiver, struct receiver_stats *stats);

#endif
