/* Where the files of disks may be, and the two names of a disk file on the move. Synchronous; each call is a few system
 * calls. No globals.
 *
 * A disk that moves to TARGET is copied into its *partial* file in the same directory. The change-over is one hard
 * link: the partial file gets TARGET as its second name, and the directory is synced. So the files alone tell for good
 * which disk is valid, to any host that reaches them and after any crash:
 *
 *   no partial file                        nothing was begun, it was called off, or all is over: the definition is
 * right a partial file, TARGET is not that     not changed over: the old file is the disk; the partial file is rubbish
 *   a partial file, TARGET is the same     changed over: TARGET is the disk
 *
 * The partial file's name holds the id of the move, so nobody else's file is ever taken for it or removed. */
#ifndef STORAGE_PLACE_H
#define STORAGE_PLACE_H

#include <limits.h>
#include <stdbool.h>

#include "base/err.h"

#define PLACE_PATH_MAX 1024 /* bytes of a disk's path, without the NUL */

/* The directory that holds `path` (which need not exist) lies in or below one of `directories`, one a line, with every
 * link followed. ERR_DENIED: it does not, ERR_UNSUPPORTED: there are none. Writes the path with its directory resolved.
 */
MUST_CHECK int place_resolve(const char *directories, const char *path, struct err *err, char out[static PATH_MAX]);
/* Where a disk in `source` goes when `asked` for: into that directory under its own name, or to that file, which must
 * not exist. */
MUST_CHECK int place_target(
    const char *directories, const char *source, const char *asked, struct err *err, char out[static PATH_MAX]);
/* ERR_CAPACITY unless the file system of `target` has room for what `source` takes up. */
MUST_CHECK int place_room(const char *source, const char *target, struct err *err);

/* Name of the partial file of move `id`. Returns `out`. */
const char *place_partial(const char *target, const char *id, char out[static PATH_MAX]);
/* Makes the partial file, empty, with mode and owner of `like` (NULL: 0600, ours). ERR_EXISTS: it or the target is
 * there. */
MUST_CHECK int place_make(const char *target, const char *id, const char *like, struct err *err);
/* The change-over. Done already is fine. */
MUST_CHECK int place_commit(const char *target, const char *id, struct err *err);
bool place_committed(const char *target, const char *id);
/* Removes the partial name: of a move that was called off that is the file, of one that is over its second name. */
void place_forget(const char *target, const char *id);
/* Removes the old file of a move that is over: a regular file inside `directories`, and not `target` itself. */
MUST_CHECK int place_remove(const char *directories, const char *old, const char *target, struct err *err);
/* Has the file's data on stable storage. For a worker thread: it may take long. */
MUST_CHECK int place_sync(const char *path, struct err *err);

#endif
