/* copies: what was sent last of pages that are written again and again, within a bound of memory: the bases of deltas.
 * Pure.
 *
 * A place holds one page. A page that was not sent for two passes may lose its place to another, and so may one whose
 * copy was of no use. A page that is being sent never does: what copies_find() and copies_admit() return belongs to the
 * caller until it calls one of the others for that page, or the pass is over. When all places are taken by pages that
 * are still being written, newcomers get none: of a working set that is larger than the bound a part is served well
 * rather than all of it badly.
 *
 * Several threads may call, each for pages of its own. Memory: the bound, allocated as it is used; 4 bytes a page of
 * RAM. */
#ifndef MIGRATE_COPIES_H
#define MIGRATE_COPIES_H

#include <stddef.h>
#include <stdint.h>

struct copies;

/* For RAM of `pages`; holds up to `bytes` of copies. Take: copies_free(). */
struct copies *copies_new(size_t pages, uint64_t bytes);
/* NULL is fine. */
void copies_free(struct copies *copies);
/* No page is being sent: the next pass begins. */
void copies_next_pass(struct copies *copies);
/* The copy of `page`, or NULL. Lent until the pass is over; the caller keeps it equal to what is sent. */
uint8_t *copies_find(struct copies *copies, uint32_t page);
/* A place for a page that has none, or NULL. Lent as above; holds anything. */
uint8_t *copies_admit(struct copies *copies, uint32_t page);
/* The same for a page of which nobody knows whether it will be sent again: only a place that was never used. Once it is
 * filled, copies_useless() leaves it to whoever needs one. */
uint8_t *copies_try(struct copies *copies, uint32_t page);
/* The copy of `page` saved nothing this time: the caller is done with it, and its place goes to whoever needs one. */
void copies_useless(struct copies *copies, uint32_t page);
/* Forgets the copy of `page`, if there is one. */
void copies_drop(struct copies *copies, uint32_t page);

#endif
