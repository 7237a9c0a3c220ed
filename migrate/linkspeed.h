/* linkspeed: what the interface on the way to an address says it can carry. */
#ifndef MIGRATE_LINKSPEED_H
#define MIGRATE_LINKSPEED_H

#include <stdint.h>

/* Bytes per second of the interface that packets to `address` (tcp://IP:PORT) leave by; 0: it does not say, or there is
 * no way there. Sends nothing. */
uint64_t linkspeed_to(const char *address);

#endif
