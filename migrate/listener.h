/* listener: a socket for one source's sealed messages. Who is not that source can prove nothing anyway, since it lacks
 * the migration's key; but each connection may fill a queue, and each message costs a pass of the cipher. So none is
 * taken that does not come from the source's address, which is that of its authenticated connection. */
#ifndef MIGRATE_LISTENER_H
#define MIGRATE_LISTENER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define LISTENER_ADDRESS_MAX 64

/* A ROUTER socket at a free port of `host` (an IP), for messages of at most `message_max` bytes from the IP `from`
 * (NULL: from anywhere). `address` is where it listens, tcp://IP:PORT. Take: zmq_close(). */
MUST_CHECK int listener_open(void *zmq, const char *host, const char *from, size_t message_max, struct err *err,
    char address[static LISTENER_ADDRESS_MAX], void **out);

#endif
