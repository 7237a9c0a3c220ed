/* linkspeed: what a network interface says it can carry. */
#ifndef BASE_LINKSPEED_H
#define BASE_LINKSPEED_H

#include <stdint.h>

/* Bytes per second of the interface that packets to `address` (tcp://IP:PORT) leave by; 0: it does not say, or there is
 * no way there. Sends nothing. */
uint64_t linkspeed_to(const char *address);
/* Of the interface that has the address `ip` on this machine; 0: it does not say, or none has it. */
uint64_t linkspeed_at(const char *ip);

#endif
