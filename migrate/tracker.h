/* tracker: which pages of guest RAM has the guest written since they were looked at last?
 *
 * Both back ends write-protect QEMU's mapping of RAM through a userfaultfd that the shim left open there (uffd.h), and
 * protect a page again before its contents may be read for sending:
 *
 * - wp-async (tracker_async.c, Linux 6.7): the kernel lets the first write to a page through and remembers it; a scan
 * is the PAGEMAP_SCAN ioctl, which collects and protects atomically per page. About 1 ms/GiB when little was written.
 * - wp-sync (tracker_sync.c, Linux 5.19): the writer waits until a thread of ours has noted the page and lets it
 *   through. A write costs more, a scan only what was written. Needs userfaultfds that are told of the kernel's faults,
 *   too. A guardian process (guardian.h) sees to it that the guest outlives an engine that is killed.
 *
 * They see every write through QEMU's mapping, by vCPUs and by system calls of QEMU, also to a page that was freed
 * since. They do not see writes through other mappings (vhost, vfio), by direct I/O that was under way when its page
 * was scanned, and holes: blind.h, source_collect.c and holes.h see to those.
 *
 * If the engine dies, what stays registered with wp-async costs the guest one resolved fault a page and nothing else;
 * with wp-sync nothing stays, unless the guardian is killed with it: tracker_release(). While a tracker is open it
 * holds a lock (flock(2)) on the RAM file, so there is one. */
#ifndef MIGRATE_TRACKER_H
#define MIGRATE_TRACKER_H

#include <sys/types.h>

#include "base/err.h"
#include "migrate/bitmap.h"
#include "migrate/ram.h"

struct tracker;

enum tracker_kind {
    TRACKER_AUTO, /* the first of the next two that works */
    TRACKER_WP_ASYNC,
    TRACKER_WP_SYNC,
    TRACKER_QEMU, /* nobody here: QEMU migrates by itself (tunnel.h); not to be opened */
};

/* The kind of a name as in configurations; false: there is none. */
bool tracker_kind_parse(const char *name, enum tracker_kind *out);

/* Finds RAM in the address space of QEMU `pid` and protects all of it. ERR_UNSUPPORTED says what is missing and what to
 * do; ERR_BUSY: another engine, or the guardian of one that died, has not let go of it. Take: tracker_close(). */
MUST_CHECK int tracker_open(
    enum tracker_kind kind, pid_t pid, const struct ram *ram, struct err *err, struct tracker **out);
/* Adds the pages written since the last scan (or since tracker_open()) to `written` and protects them again. */
MUST_CHECK int tracker_scan(struct tracker *tracker, struct err *err, struct bitmap *written);
/* The same for `pages` pages from `first` on. Several threads may do so at once, each for multiples of 64 pages of its
 * own, while nobody scans. */
MUST_CHECK int tracker_rescan(
    struct tracker *tracker, size_t first, size_t pages, struct err *err, struct bitmap *written);
/* Lifts the protection. NULL is fine. */
void tracker_close(struct tracker *tracker);
/* Ends what a dead engine's tracker has left in QEMU `pid`, should its guardian have died, too. Waits until that is
 * gone; later engines are refused meanwhile (ERR_BUSY). Errors are those of uffd_release(). */
MUST_CHECK int tracker_release(pid_t pid, const struct ram *ram, struct err *err);
/* Name of the back end, for records: "wp-async" or "wp-sync". */
const char *tracker_name(const struct tracker *tracker);

#endif
