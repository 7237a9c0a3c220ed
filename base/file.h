/* Small files: read whole with a bound, write atomically. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

/* Reads the file at `path` into `out` (replacing its contents); more than `max` bytes is an error. */
MUST_CHECK int file_read(const char *path, size_t max, struct err *err, struct buf *out);
/* Writes `path` so that a reader sees the old or the new contents, also after a crash: temporary file, fsync, rename.
 * On return the new ones outlive a loss of power, too: the directory is synced. -1: either may be there. */
MUST_CHECK int file_write(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
/* The same, but for what must be quick: until the file system writes its directory by itself, after seconds, a loss of
 * power brings the old contents back, whole. */
MUST_CHECK int file_replace(const char *path, const void *data, size_t len, mode_t mode, struct err *err);
/* On return the names in the directory, and what has gone from it, outlive a loss of power. */
MUST_CHECK int file_sync_directory(const char *path, struct err *err);
/* The same for the directory that the file is in. */
MUST_CHECK int file_sync_parent(const char *path, struct err *err);
/* Makes the directory and its parents, durably; what exists already is fine. New ones get `mode`. */
MUST_CHECK int file_make_dirs(const char *path, mode_t mode, struct err *err);
/* The same for a directory in which nobody else may put, rename or remove anything: made with 0700, or there already as
 * a directory of ours (no link to one) that only we may write to. ERR_DENIED: it is another's, and `err` says whose. */
MUST_CHECK int file_make_private(const char *path, struct err *err);
/* Removes a directory with everything in it, not following links. What is not there (any more) is fine; on return
 * nothing is. */
MUST_CHECK int file_remove_tree(const char *path, struct err *err);

#endif
