/* The log's directory: what libraft 0.22.1 leaves undone in it.
 *
 * When it loads an open segment, it takes whatever does not check for a write that was cut off, and drops it with all
 * that is behind it. And it shortens the log in several steps: the shorter segment is written beside the longer one,
 * which is removed after it, and then those behind; a directory that was left in between it does not load. So a marker
 * stands in the directory while the log is being shortened, and is read before libraft reads the rest. */
#ifndef RAFT_LOGDIR_H
#define RAFT_LOGDIR_H

#include <stdint.h>

#include "base/err.h"

/* Around the writing of a log's first entry, which takes several steps: what a founding that was cut off has left is
 * removed by the next one. ERR_EXISTS: the directory has a log, or a part of one that is not of a founding. */
MUST_CHECK int logdir_found_begin(const char *directory, struct err *err);
MUST_CHECK int logdir_found_end(const char *directory, struct err *err);

/* Before libraft loads: finishes or undoes a shortening that did not end, and checks the open segments. ERR_CORRUPT:
 * what may have been acknowledged does not check; nothing has been changed. ERR_NOT_FOUND: there is the beginning of a
 * founding. A write that was cut off is logged. */
MUST_CHECK int logdir_prepare(const char *directory, struct err *err);

/* The log is about to lose its entries from `index` (at least 1) on. */
MUST_CHECK int logdir_mark(const char *directory, uint64_t index, struct err *err);
/* It has lost them, and others are in their place. */
MUST_CHECK int logdir_unmark(const char *directory, struct err *err);

#endif
