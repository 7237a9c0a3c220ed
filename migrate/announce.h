/* announce: tells switches that a MAC address has moved here, with reverse ARP frames (RFC 903) sent from `interface`
 * as if by the guest, so also for a guest that is silent. */
#ifndef MIGRATE_ANNOUNCE_H
#define MIGRATE_ANNOUNCE_H

#include <stdint.h>

#include "base/err.h"

/* Sends one frame for `mac` (aa:bb:cc:dd:ee:ff). */
MUST_CHECK int announce_mac(const char *interface, const char *mac, struct err *err);

#endif
