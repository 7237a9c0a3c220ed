/* Somebody who connects to a port of an engine's without being asked to. */
#ifndef TESTS_MIGRATE_STRANGER_H
#define TESTS_MIGRATE_STRANGER_H

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

/* Connects to `address` (tcp://127.0.0.1:PORT) from the IP `from`, one of this machine's. Take: close(2). */
static inline int stranger_connect(const char *address, const char *from)
{
    unsigned port;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(from)};
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(sscanf(address, "tcp://127.0.0.1:%u", &port), 1);
    there.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&there, sizeof there), 0);
    return fd;
}

#endif
