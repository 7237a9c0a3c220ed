/* heard: which IP addresses a guest answers to, learned from the ARP and neighbour discovery frames that its taps hear,
 * so also of a guest that never begins a conversation: who talks to it asks first, and it answers. A migration
 * announces them from the other host. Kept in a file of the partition, one line of base/neighbour.h each, which the
 * engines of a migration read and write, too; a hostd that starts again goes on with it. Learns at most HEARD_PER_NIC a
 * network card, of its own MAC address alone. Nothing fails for want of it: what goes wrong is logged. */
#ifndef HOSTD_HEARD_H
#define HOSTD_HEARD_H

#include <uv.h>

#include "base/buf.h"
#include "base/neighbour.h"

#define HEARD_PER_NIC 16u

struct heard;

/* Listens at no tap yet. `file` is copied. Take: heard_close(). */
struct heard *heard_open(uv_loop_t *loop, const char *file);
/* Listens at a tap for the card of this MAC address. */
void heard_listen(struct heard *heard, const char *tap, const char *mac);
void heard_close(struct heard *heard); /* NULL is fine */

/* Adds what is new to the lines of `text`; false: nothing is, or the card has enough. Pure. */
bool heard_add(struct buf *text, const struct neighbour *neighbour);

#endif
