/* address: where a server listens, "tcp://IP:PORT", with brackets around an IPv6 address: tcp://[fd00::1]:7420. Names
 * of hosts are refused: nothing of Drover waits for a resolver. Pure. */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

#define ADDRESS_TEXT_MAX 64 /* of tcp://IP:PORT, with the NUL */

struct address {
    uint8_t ip[16]; /* 4 bytes, then zeros, unless ipv6 */
    bool ipv6;
    uint16_t port;
};

/* Reads tcp://IP:PORT; the port is 1 to 5 digits, and may be 0: what a listener has chosen for it. */
MUST_CHECK int address_parse(const char *text, struct err *err, struct address *out);
/* Reads IP:PORT, as others than our own programs are told of it. */
MUST_CHECK int address_parse_bare(const char *text, struct err *err, struct address *out);
/* Of an IP alone, without brackets; the error says that it is none. */
MUST_CHECK int address_of_ip(const char *ip, uint16_t port, struct err *err, struct address *out);

/* tcp://IP:PORT; returns `out`. */
const char *address_print(const struct address *address, char out[static ADDRESS_TEXT_MAX]);
/* The same IP and port, however they were written. */
bool address_equal(const struct address *a, const struct address *b);
/* For bind(2) and connect(2); the length. */
socklen_t address_socket(const struct address *address, struct sockaddr_storage *out);

#endif
