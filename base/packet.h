/* packet: hears on a loop what a filter lets through at one interface. Single-threaded. */
#ifndef BASE_PACKET_H
#define BASE_PACKET_H

#include <linux/filter.h>
#include <uv.h>

#include "base/err.h"

struct packet;

/* Frames are there: `fd` gives them whole, from the Ethernet header on, and does not block. It may be left to be called
 * again for some of them. */
typedef void (*packet_fn)(void *user, int fd);

/* It hears nothing that the filter would drop, and falls silent when the interface goes. Nobody is called before the
 * loop runs. Take: packet_close(). */
MUST_CHECK int packet_open(uv_loop_t *loop, const char *interface, const struct sock_fprog *filter, packet_fn fn,
    void *user, struct err *err, struct packet **out);
/* Its socket, lent: for its options. */
int packet_fd(const struct packet *packet);
/* Nobody is called any more. */
void packet_deafen(struct packet *packet);
/* The same, and releases it once the loop comes round; the kernel waits for all CPUs then (8-14 ms were measured). NULL
 * is fine. */
void packet_close(struct packet *packet);

#endif
