/* sieve: decides what becomes of each page that is to be sent, and puts it into a batch. Pure.
 *
 *     sieve_begin -> sieve_add()* while sieve_has_room() -> sieve_finish
 *
 * What the destination holds is known by digest, so nothing is sent that is there already: pages that were written with
 * what they held (silent), and zeros where it has zeros. Of pages whose last-sent copy is at hand only what changed is
 * sent. Pages that are sent for the first time are named only, where the destination offers the same from the guest's
 * last visit; that needs nothing to be known. The others stand on three things:
 * - the destination begins with empty RAM, as the digests do;
 * - a page is in one pass at most once, and a pass is over only when all of it was applied;
 * - whatever goes wrong in between ends the migration.
 * In post-copy none of these holds, so there the sieve is given no digests and sends every page whole.
 *
 * All of that costs CPU time, so it is done where bytes are dear (`thorough`). Where they are not, pages are packed
 * quickly; no digest is made, unless a receipt needs it; no copy is kept, and those that there are are used.
 *
 * One sieve belongs to one thread; several share digests and copies, but never a page of the same pass. */
#ifndef MIGRATE_SIEVE_H
#define MIGRATE_SIEVE_H

#include "migrate/batch.h"
#include "migrate/classes.h"
#include "migrate/copies.h"
#include "migrate/digest.h"
#include "migrate/offer.h"

struct sieve {
    struct digests *digests;     /* lent; NULL: nothing is known of what the destination holds */
    bool silent;                 /* silent writes are left out */
    struct copies *copies;       /* lent; NULL: no deltas; set only if `digests` is */
    const struct offer *offer;   /* lent; NULL: the destination offers nothing */
    struct image_cipher *cipher; /* of the offer, this thread's own; lent */
    bool thorough;               /* bytes are dear (pressure.h); may change between batches */
    struct classes counts;       /* since whoever counts cleared it */
    struct batch batch;
};

void sieve_begin(struct sieve *sieve);
/* True if `pages` more can be added, whatever they are. */
bool sieve_has_room(const struct sieve *sieve, uint32_t pages);
/* Contents that lie in batch_room() of its batch need not be copied: see there. */
void sieve_add(struct sieve *sieve, uint32_t page, const uint8_t *content);
/* Writes the message into `out` (BATCH_BYTES_MAX long) and returns its length; 0: there is nothing to send. */
size_t sieve_finish(struct sieve *sieve, uint8_t *out);
/* The same in pieces, as batch_encode_pieces() makes them. */
size_t sieve_finish_pieces(struct sieve *sieve, uint8_t *space, struct iovec pieces[static BATCH_PIECES]);

#endif
