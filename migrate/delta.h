/* delta: a page as what changed in it since the copy that the other side holds. Pure.
 *
 *     (varint bytes that are equal | varint bytes that are not | these)*
 *
 * Beside LZ4 with the old page as dictionary it took half the bytes (MEASURED.md). The changed bytes travel as they are
 * now, not as a difference, so that applying a delta twice does no harm. */
#ifndef MIGRATE_DELTA_H
#define MIGRATE_DELTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Writes what makes `page` of `base` into `out`. False: it takes more than `max` bytes. */
bool delta_encode(const uint8_t *base, const uint8_t *page, uint8_t *out, size_t max, size_t *len);
/* Makes the new page of the old one. ERR_PROTOCOL, and `page` may be half changed, if the delta makes no sense. */
MUST_CHECK int delta_apply(const uint8_t *delta, size_t len, struct err *err, uint8_t *page);

#endif
