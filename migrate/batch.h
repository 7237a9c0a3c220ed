/* batch: what became of a number of pages of guest RAM, as one message. Pure.
 *
 *     u32 runs | u32 full_bytes | u32 folded_bytes | u32 packed_bytes | u32 delta_bytes
 *     runs x (u32 first page, u8 kind << 6 | pages - 1) | packed | deltas
 *
 * Little endian. A run is up to 64 neighbouring pages of one kind. The contents of full pages follow each other in the
 * order of their runs, folded (fold.h) if that makes them shorter (else folded_bytes = full_bytes), and then as one LZ4
 * block; what that would not make shorter is stored as it is (packed_bytes = folded_bytes).
 * Deltas (delta.h) follow in the order of their runs, each as u16 length and bytes. A receiver takes nothing on trust:
 * every number is checked against the limits first. */
#ifndef MIGRATE_BATCH_H
#define MIGRATE_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "migrate/ram.h"

#define BATCH_FORMAT      2u /* of the message; another number with each change. 2: folded pages */
#define BATCH_RUNS        256u
#define BATCH_RUN_PAGES   64u
#define BATCH_FULL_PAGES  64u
#define BATCH_FULL_BYTES  (BATCH_FULL_PAGES * PAGE_BYTES)
#define BATCH_DELTA_BYTES 65536u
#define BATCH_DELTA_MAX   1024u /* of one page; more saves too little */
#define BATCH_HEADER      20u
#define BATCH_RUN_BYTES   5u
#define BATCH_BYTES_MAX   (BATCH_HEADER + BATCH_RUNS * BATCH_RUN_BYTES + BATCH_FULL_BYTES + BATCH_DELTA_BYTES)

#define BATCH_REUSED_PAGES 1024u /* of a message: they are read from a disk before it is acknowledged */

#define BATCH_PIECES 3u

enum batch_kind {
    BATCH_ZERO,
    BATCH_FULL,
    BATCH_DELTA,  /* what changed since the page was sent last */
    BATCH_REUSED, /* as the destination has it from the guest's last visit (image.h) */
    BATCH_KINDS
};

struct batch_run {
    uint32_t first;
    uint8_t kind, pages;
    uint32_t at; /* where its contents begin, in the pages or in the deltas */
};

/* To begin with, all zeros. */
struct batch {
    bool quick; /* to be packed in less time, not in fewer bytes; set by whoever makes it */
    bool vain;  /* the last block did not shrink, so the next is worth a try only if a sample of it does */
    uint32_t runs;
    struct batch_run run[BATCH_RUNS];
    uint32_t reused_pages;
    uint32_t full_bytes, delta_bytes;
    uint32_t folded_bytes, packed_bytes; /* once it was encoded or decoded */
    const uint8_t *pages, *delta;        /* once it was decoded: contents, one behind the other */
    uint8_t full[BATCH_FULL_BYTES];      /* what was added; what was unpacked */
    uint8_t folded[BATCH_FULL_BYTES];
    uint8_t deltas[BATCH_DELTA_BYTES];
};

void batch_begin(struct batch *batch);
/* True if `pages` more can be added, whatever they are. */
bool batch_has_room(const struct batch *batch, uint32_t pages);
/* Where the next full page goes, and those behind it. Contents that are read to there need not be copied when they are
 * added, in the order in which they lie there. */
uint8_t *batch_room(struct batch *batch);
/* Each returns true if the page began a new run. Copied. */
bool batch_add_zero(struct batch *batch, uint32_t page);
bool batch_add_reused(struct batch *batch, uint32_t page);
bool batch_add_full(struct batch *batch, uint32_t page, const uint8_t *content);
bool batch_add_delta(struct batch *batch, uint32_t page, const uint8_t *delta, size_t len);

/* Writes the message into `out` (BATCH_BYTES_MAX long) and returns its length. */
size_t batch_encode(struct batch *batch, uint8_t *out);
/* The same in pieces, so that what is not packed is not copied either: they are parts of the batch and of `space`
 * (BATCH_BYTES_MAX long), lent until one of them changes. */
size_t batch_encode_pieces(struct batch *batch, uint8_t *space, struct iovec pieces[static BATCH_PIECES]);
/* Reads a message; pages must lie below `page_limit`. ERR_PROTOCOL on anything that encode does not make. `data` is
 * lent to `out`, which points into it. */
MUST_CHECK int batch_decode(const uint8_t *data, size_t len, size_t page_limit, struct err *err, struct batch *out);
/* The delta at `*at` in those of a decoded batch, and on to the next. Lent. */
const uint8_t *batch_delta(const struct batch *batch, uint32_t *at, size_t *len);

#endif
