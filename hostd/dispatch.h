/* Routes each request of the controllers to its handler. */
#ifndef HOSTD_DISPATCH_H
#define HOSTD_DISPATCH_H

#include "hostd/console.h"
#include "hostd/partition/partition.h"

struct dispatch {
    struct partitions *partitions;
    struct console *console;
};

/* A wire_handler_fn; `user` is a struct dispatch. */
void dispatch_request(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len);

#endif
