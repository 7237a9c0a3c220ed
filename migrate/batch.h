/* batch: up to BATCH_PAGES pages of guest RAM as one message. Pure.
 *
 *     u32 pages | u32 raw_bytes | u32 packed_bytes | pages x u32 (page number, top bit: zero page) | packed bytes
 *
 * Little endian. The contents of the pages that are not zero follow each other, as one LZ4 block; a block that would
 * not shrink is stored as it is (packed_bytes = raw_bytes). A receiver takes nothing on trust: every number is checked
 * against the limits first. */
#ifndef MIGRATE_BATCH_H
#define MIGRATE_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/ram.h"

#define BATCH_PAGES     64u
#define BATCH_RAW_BYTES (BATCH_PAGES * PAGE_BYTES)
#define BATCH_ZERO      0x80000000u
#define BATCH_HEADER    12u
/* LZ4's bound for incompressible data is raw + raw / 255 + 16. */
#define BATCH_BYTES_MAX (BATCH_HEADER + BATCH_PAGES * 4u + BATCH_RAW_BYTES + BATCH_RAW_BYTES / 255u + 16u)

struct batch {
    uint32_t count;             /* pages */
    uint32_t page[BATCH_PAGES]; /* numbers, with BATCH_ZERO */
    uint32_t raw_bytes;         /* of `data` in use: PAGE_BYTES a page that is not zero, in their order */
    uint8_t data[BATCH_RAW_BYTES];
};

/* Writes the message into `out` (BATCH_BYTES_MAX long) and returns its length. */
size_t batch_encode(const struct batch *batch, uint8_t *out);
/* Reads a message; pages must lie below `page_limit`. ERR_PROTOCOL on anything that encode does not make. */
MUST_CHECK int batch_decode(const uint8_t *data, size_t len, size_t page_limit, struct err *err, struct batch *out);

#endif
