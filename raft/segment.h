/* Segments of the log, as libraft 0.22 writes them: read to tell a write that was cut off from bytes that have changed
 * since. Pure.
 *
 * A segment is a word with the format's version and batches behind it, one for each write that was asked for; words are
 * little-endian:
 *
 *     checksum of the header (4) | of the data (4)
 *     header: entries (8) | for each: term (8), kind (1), zeros (3), bytes of data (4)
 *     data: the entries' bytes, one behind the other, each a multiple of 8
 *
 * A closed segment ends with its last batch. An open one has had its length since it was made: behind its last batch
 * there are zeros. Batches that came while the disk was busy go into one write, and one write is under way at a time.
 * So a loss of power leaves zeros where sectors of the last write are missing, and batches of the same write may be
 * whole behind them; nobody has been told that any of them is safe. Where a batch does not check although none of its
 * sectors is missing, bytes have changed that somebody may rely on, also in the last batch of all: a disk writes a
 * sector of 512 bytes whole or not at all. */
#ifndef RAFT_SEGMENT_H
#define RAFT_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct segment_name {
    bool open;
    uint64_t counter;     /* of an open segment: newer ones have higher ones */
    uint64_t first, last; /* entries of a closed one */
};
/* False: the file is no segment. */
bool segment_parse_name(const char *name, struct segment_name *out);

enum segment_state {
    SEGMENT_UNUSED,  /* empty, or nothing but zeros */
    SEGMENT_WHOLE,   /* every batch checks */
    SEGMENT_CUT_OFF, /* every batch up to `at`, where the last write begins, or is missing a part */
    SEGMENT_SPOILT,  /* what is at `at` has changed since it was written */
};
struct segment_report {
    enum segment_state state;
    size_t at;
};
/* Reads an open segment. */
void segment_check(const uint8_t *data, size_t len, struct segment_report *out);

#endif
