/* tracker: which pages of guest RAM has the guest written since they were looked at last?
 *
 * Back end: asynchronous userfaultfd write-protection and the PAGEMAP_SCAN ioctl (Linux 6.7). The userfaultfd is QEMU's
 * own, left open there by the shim and taken with pidfd_getfd(2). RAM is write-protected; the first write to a page is
 * let through by the kernel and remembered; a scan collects the remembered pages and protects them again, atomically
 * per page.
 *
 * Sees every write through QEMU's mapping, by vCPUs and by system calls of QEMU. Does not see writes through other
 * mappings (vhost, vfio), by direct I/O that was under way when its page was scanned, and holes: blind.h,
 * source_collect.c and holes.h see to those. If the engine dies, what stays registered costs the guest one resolved
 * fault a page and nothing else. */
#ifndef MIGRATE_TRACKER_H
#define MIGRATE_TRACKER_H

#include <sys/types.h>

#include "base/err.h"
#include "migrate/bitmap.h"
#include "migrate/ram.h"

struct tracker;

/* Finds RAM in the address space of QEMU `pid` and protects all of it. ERR_UNSUPPORTED says what is missing and what to
 * do. Take: tracker_close(). */
MUST_CHECK int tracker_open(pid_t pid, const struct ram *ram, struct err *err, struct tracker **out);
/* Adds the pages written since the last scan (or since tracker_open()) to `written` and protects them again.
 * About 1 ms/GiB when little was written. */
MUST_CHECK int tracker_scan(struct tracker *tracker, struct err *err, struct bitmap *written);
/* Lifts the protection. NULL is fine. */
void tracker_close(struct tracker *tracker);
/* Name of the back end, for records: "wp-async". */
const char *tracker_name(const struct tracker *tracker);

#endif
