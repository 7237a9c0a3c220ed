/* packet: a packet socket that listens at one interface, to what a filter lets through. */
#ifndef BASE_PACKET_H
#define BASE_PACKET_H

#include <linux/filter.h>

#include "base/err.h"

/* Not blocking; frames come whole, from the Ethernet header on. It hears nothing that the filter would drop. Take:
 * close(2), for which the kernel waits for all CPUs (8-14 ms were measured). */
MUST_CHECK int packet_listen(const char *interface, const struct sock_fprog *filter, struct err *err, int *out);

#endif
