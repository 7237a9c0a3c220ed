/* Where the files of disks may be, and the two names of a disk file on the move. Synchronous: system calls that wait
 * for as long as the storage does, so for a worker thread where that may be gone. No globals.
 *
 * A disk that moves to TARGET is copied into its *partial* file in the same directory. The change-over is one hard
 * link: the partial file gets TARGET as its second name, and the directory is synced. So the files alone tell for good
 * which disk is valid, to any host that reaches them and after any crash:
 *
 *   partial file | TARGET         | it has changed over                             | the disk is
 *   -------------+----------------+-------------------------------------------------+-----------------------
 *   there        | is the same    | yes                                             | TARGET
 *   there        | is another one | no; the partial file is rubbish                 | the old file
 *   there        | is not there   | no; the partial file is rubbish                 | the old file
 *   not there    | either         | never begun, called off, or all of it is over   | what the definition says
 *
 * Only the files do: a directory whose file system is not mounted (yet) has no partial file either, and storage that
 * fails tells nothing. So the last line holds only in the directory that was looked at before the move began
 * (place_where()), and everything else is "not known".
 *
 * The partial file's name holds the id of the move, so nobody else's file is ever taken for it or removed. */
#ifndef STORAGE_PLACE_H
#define STORAGE_PLACE_H

#include <limits.h>
#include <stdint.h>

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

/* What tells a directory from the bare mount point below it, on one host and over its boots: a file system's root never
 * has the inode number of another directory of the same type. Zeros: not known. */
struct place_where {
    uint64_t file_system; /* type, by statfs(2) */
    uint64_t inode;
};
/* Where `target` is to be. ERR_UNAVAILABLE: its directory cannot be seen. */
MUST_CHECK int place_where(const char *target, struct err *err, struct place_where *out);

/* Name of the partial file of move `id`. Returns `out`. */
const char *place_partial(const char *target, const char *id, char out[static PATH_MAX]);
/* Makes the partial file, empty, with mode and owner of `like` (NULL: 0600, ours). ERR_EXISTS: it or the target is
 * there. */
MUST_CHECK int place_make(const char *target, const char *id, const char *like, struct err *err);
/* The change-over. Done already is fine. */
MUST_CHECK int place_commit(const char *target, const char *id, struct err *err);
/* 1: changed over; 0: certainly not; -1: cannot be told now, and `err` (ERR_UNAVAILABLE) says why. `where` is what
 * place_where() said before the move began. */
MUST_CHECK int place_committed(const char *target, const char *id, struct place_where where, struct err *err);
/* Removes the partial name: of a move that was called off that is the file, of one that is over its second name. */
void place_forget(const char *target, const char *id);
/* Removes the old file of a move that is over: a regular file inside `directories`, and not `target` itself. */
MUST_CHECK int place_remove(const char *directories, const char *old, const char *target, struct err *err);
/* Has the file's data on stable storage. For a worker thread: it may take long. */
MUST_CHECK int place_sync(const char *path, struct err *err);

#endif
