/* relay: carries the connections over which QEMU copies a guest's disks (NBD) between the hosts, so that they share the
 * migration's authentication and encryption.
 *
 *   QEMU there --UNIX--> source's relay ==TCP, each message sealed==> destination's relay --UNIX--> QEMU's NBD server
 *
 * A connection each. Who does not come from the source's address is hung up on. The source's relay begins one with its
 * number in clear, then an empty message under seal; before that has been opened the destination connects to nothing.
 * Numbers are used once under a key, so that neither nonces nor messages repeat. What one end has not taken yet holds
 * up the other: at most RELAY_HELD_BYTES are held each way. A connection that breaks at one end is closed at the other.
 *
 * What the guest writes waits for the destination, and QEMU waits for ever. So the source's relay follows what is asked
 * and answered (nbd.h), and tells its owner when the destination's end is lost or stands still although QEMU waits for
 * it. Once the move is called off the owner has the relay answer QEMU alone: whatever is asked is done, as far as QEMU
 * can tell, so that the guest's writes are over at once and without an error, which QEMU's mirror does not survive in
 * all cases (mirror.h). On the loop. */
#ifndef MIGRATE_RELAY_H
#define MIGRATE_RELAY_H

#include <stdint.h>
#include <uv.h>

#include "base/err.h"

#define RELAY_LINKS_MAX  64u          /* connections in the life of a relay */
#define RELAY_HELD_BYTES (1u << 20)   /* and one message more */
#define RELAY_DATA_MAX   (128u << 10) /* bytes of one message, before sealing */

struct relay;

struct relay_watch {
    uint32_t data_ms;  /* so long a write may wait while nothing moves */
    uint32_t range_ms; /* and one that only zeroes or discards, because that may be 2 GiB; a flush waits as it has to */
    /* The destination's end of a connection is gone, or stands still. Unless relay_answer_alone() is called in here,
     * the connection is closed. */
    void (*on_lost)(void *user, const struct err *err);
    void *user;
};

/* Source: listens at the UNIX socket `path` (mode 0600); each connection goes to `address` (tcp://IP:PORT). Take:
 * relay_close(). `key` is copied. */
MUST_CHECK int relay_open_source(uv_loop_t *loop, const char *path, const char *address, const uint8_t *key,
    const struct relay_watch *watch, struct err *err, struct relay **out);
/* Destination: listens at a free port of `host` for connections from the IP `from`; each goes to the UNIX socket
 * `path`. Take likewise. */
MUST_CHECK int relay_open_destination(uv_loop_t *loop, const char *host, const char *from, const char *path,
    const uint8_t *key, struct err *err, struct relay **out);
/* Destination: tcp://IP:PORT. Lent. */
const char *relay_address(const struct relay *relay);
/* Sent and received, as it went over the network. */
uint64_t relay_wire_bytes(const struct relay *relay);
/* Source: from now on the destination is not asked, and whatever QEMU asks is answered as done, also what it has asked
 * already. So the move must have been called off for good. A connection of which not enough is known stays as it was.
 * NULL is fine. */
void relay_answer_alone(struct relay *relay);
/* Closes every connection at once. NULL is fine. */
void relay_close(struct relay *relay);

#endif
