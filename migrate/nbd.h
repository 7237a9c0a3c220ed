/* nbd: pure: what of a connection between QEMU's NBD client and server is still to be answered, from the bytes of both
 * directions as they pass (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md; fixed newstyle, with
 * compact or extended headers and simple or structured replies; no TLS).
 *
 * It looks and keeps little: a request is known from its header, its data are skipped. What is not NBD, or has more
 * requests under way than any QEMU has, is not followed any further: nothing is known of such a connection. */
#ifndef MIGRATE_NBD_H
#define MIGRATE_NBD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define NBD_REQUESTS_MAX 64u /* under way in one connection; QEMU has up to 16 */

/* What the client waits for. Of several, that which should be answered soonest. */
enum nbd_wait {
    NBD_NOTHING, /* or not known */
    NBD_FLUSH,   /* takes as long as all that was written before it */
    NBD_RANGE,   /* up to 2 GiB to be zeroed or discarded, which some storage does by writing */
    NBD_DATA,    /* a write, a read or an answer of the handshake; or a request has begun that is not whole yet */
};

/* One direction: the frame that is passing. */
struct nbd_frame {
    uint8_t head[32];
    size_t have;   /* of the head */
    uint64_t skip; /* of what follows it, to come */
};

struct nbd_request {
    uint64_t cookie, offset;
    uint64_t data_bytes; /* that a simple reply to it carries */
    uint16_t type;
    bool extended;
};

struct nbd {
    struct nbd_frame client, server;
    struct nbd_request passing; /* the client's frame, if it is a request */
    struct nbd_request requests[NBD_REQUESTS_MAX];
    unsigned count;
    bool greeted, option; /* the server has begun; an option waits for its answer */
    bool unknown;         /* not followed any further */
};

/* A connection begins. */
void nbd_init(struct nbd *nbd);
/* Bytes of the client to the server, and back, in order. */
void nbd_sent(struct nbd *nbd, const uint8_t *data, size_t len);
void nbd_answered(struct nbd *nbd, const uint8_t *data, size_t len);
enum nbd_wait nbd_waits_for(const struct nbd *nbd);
/* Appends to `out` what a server would say that has done all that was asked: from then on it must say nothing itself.
 * Writes are answered as done. False, and nothing is appended: that cannot be, because an answer has begun, the
 * handshake is not over, something is read, or nothing is known of the connection. */
bool nbd_answer_all(struct nbd *nbd, struct buf *out);

#endif
