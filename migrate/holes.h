/* holes: pages of guest RAM that are freed behind the tracker's back.
 *
 * A balloon and free page reporting punch holes into the RAM file. The tracker does not see it, and a page that is only
 * read afterwards is allocated again, zero, and looks untouched: comparing what is allocated is not enough. So the file
 * is mapped here, too, and a page is watched by having it present in that mapping: the kernel takes it out when the
 * page is freed, and nothing but holes_watch() puts it back.
 *
 *   holes_watch(pages) -> read and send them -> holes_scan(): those that were freed since read as zeros now
 *
 * Costs 8 bytes of page table a page, 60 to 70 ms/GiB for the first watch, 155 ms/GiB of pages that are new later, and
 * 8 ms/GiB for a scan, but only after something was freed: inotify tells (measured on tmpfs, Linux 6.18). Pages that
 * the kernel swaps out count as freed, which costs no more than sending them again. One thread at a time. */
#ifndef MIGRATE_HOLES_H
#define MIGRATE_HOLES_H

#include "migrate/ram.h"

struct holes;

/* `ram` is lent. Take: holes_close(). */
MUST_CHECK int holes_open(const struct ram *ram, struct err *err, struct holes **out);
void holes_close(struct holes *holes); /* NULL is fine */
/* Watches those of `pages` that are allocated; the others read as zeros until they are written, which the tracker sees.
 * To be called before they are read. */
MUST_CHECK int holes_watch(struct holes *holes, const struct bitmap *pages, struct err *err);
/* Adds the watched pages that were freed since, and watches them no longer. */
MUST_CHECK int holes_scan(struct holes *holes, struct err *err, struct bitmap *freed);

/* Those that are watched now. Lent. */
const struct bitmap *holes_watched(const struct holes *holes);

#endif
