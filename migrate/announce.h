/* announce: tells the network that a guest has moved here, with frames sent from `interface` as if by the guest, so
 * also for a guest that is silent: reverse ARP (RFC 903) for switches, which learn where its MAC address is; ARP
 * announcements (RFC 5227) and unsolicited neighbour advertisements (RFC 4861) of its IP addresses for whoever forwards
 * by these. The guest's own MAC address is in all of them, so nobody, and not the guest itself, sees a conflict. */
#ifndef MIGRATE_ANNOUNCE_H
#define MIGRATE_ANNOUNCE_H

#include <stdint.h>

#include "base/neighbour.h"

/* The socket that all frames of a guest leave by. It is kept until nobody waits any more: to close one the kernel waits
 * for all CPUs (8-14 ms were measured), which the answer to the source would come later. Take: close(2). */
MUST_CHECK int announce_open(struct err *err, int *out);

/* Sends one frame for `mac` (aa:bb:cc:dd:ee:ff). */
MUST_CHECK int announce_mac(int socket, const char *interface, const char *mac, struct err *err);

/* Sends one frame for an IP address. */
MUST_CHECK int announce_address(int socket, const char *interface, const struct neighbour *neighbour, struct err *err);

/* The frame that announces an address; returns its length. Pure. */
#define ANNOUNCE_FRAME_MAX 96
size_t announce_frame(const struct neighbour *neighbour, uint8_t out[static ANNOUNCE_FRAME_MAX]);

#endif
