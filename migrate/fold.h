/* fold: leaves out of pages the words that only repeat the word before them, as zeros between a structure's fields,
 * unused ends of pages and initialised arrays do. It takes a sixth of the time in which LZ4 finds the same, and leaves
 * LZ4 less to look at. Pure.
 *
 *     64 bits: which of the pages are folded | of each of these 512 bits: which words are kept
 *     contents, one page after the other: the words kept of a folded page, any other page whole
 *
 * A word is 8 bytes; before the first of a page a zero is imagined. Bit i is bit i % 8 of byte i / 8. */
#ifndef MIGRATE_FOLD_H
#define MIGRATE_FOLD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/ram.h"

#define FOLD_PAGES_MAX 64u

/* Folds up to FOLD_PAGES_MAX pages into `out`, which is as long as they are. Returns the length; 0: they would not
 * become shorter by enough. */
size_t fold(const uint8_t *pages, size_t count, uint8_t *out);
/* Gives `count` pages back. -1 for what fold() does not make; `out` may be written to then, too. */
MUST_CHECK int unfold(const uint8_t *data, size_t len, size_t count, uint8_t *out);

#endif
