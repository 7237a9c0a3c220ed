/* neighbour: an IP address and the network card that answers to it, as learned from what the card sends (ARP; neighbour
 * discovery), and as a line of text, "MAC IP" or "MAC IP router". Pure. */
#ifndef BASE_NEIGHBOUR_H
#define BASE_NEIGHBOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define NEIGHBOUR_TEXT_MAX 80  /* of a line, with the NUL */
#define NEIGHBOURS_MAX     128 /* of one guest, wherever they are kept */

struct neighbour {
    uint8_t mac[6];
    bool ipv6, router; /* router: said so of itself (IPv6) */
    uint8_t ip[16];    /* 4 bytes, then zeros, unless ipv6 */
};

/* As mac_parse(). */
bool neighbour_parse_mac(const char *text, uint8_t out[static 6]);
/* Reads one line, which ends at `len`. */
MUST_CHECK int neighbour_parse(const char *line, size_t len, struct err *err, struct neighbour *out);
const char *neighbour_print(const struct neighbour *neighbour, char out[static NEIGHBOUR_TEXT_MAX]);
bool neighbour_equal(const struct neighbour *a, const struct neighbour *b);

/* What an Ethernet frame says of its sender's own address; false: nothing. The frame is a stranger's. */
bool neighbour_learn(const uint8_t *frame, size_t len, struct neighbour *out);

#endif
