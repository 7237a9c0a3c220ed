/* tunnel: QEMU's own migration, RAM and devices as one stream of bytes, through our authenticated and compressed
 * channel. For hosts where nobody but QEMU can tell what a guest writes.
 *
 *   QEMU --UNIX socket--> source end --sealed messages--> destination end --UNIX socket--> QEMU
 *                            ^-------- bytes written to QEMU --------'
 *
 * Each end is a thread. A message is sealed (seal.h) and holds u32 unpacked_bytes (0: not packed) and a piece of the
 * stream (pack.h); the answer (ack.h) counts bytes of messages whose contents QEMU has taken, which is the source's
 * credit: what QEMU there does not take, QEMU here cannot write. Memory: a few pieces, and the window. Failure (a peer
 * silent for TUNNEL_SILENCE_MS, QEMU's socket broken, a message that is genuine but senseless) is told once through
 * on_failed; what is not genuine is dropped. Callbacks come on the loop's thread. */
#ifndef MIGRATE_TUNNEL_H
#define MIGRATE_TUNNEL_H

#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "migrate/quota.h"

#define TUNNEL_SILENCE_MS   10000u
#define TUNNEL_WINDOW_BYTES (4u << 20)

struct tunnel;

struct tunnel_options {
    const uint8_t *key;          /* SEAL_KEY_BYTES, copied */
    const char *socket;          /* of QEMU; copied. Source: made here, and QEMU connects. Destination: QEMU's */
    const char *address;         /* source: where the destination end listens */
    const char *host;            /* destination: IP to bind to */
    const char *from;            /* destination: the source's IP; NULL: anyone may connect */
    struct quota *quota;         /* source: lent; NULL: not limited */
    uint64_t window_bytes;       /* source: how much may be under way */
    void (*on_over)(void *user); /* source: QEMU has closed its end, and QEMU there has taken every byte */
    void (*on_failed)(void *user, const struct err *err);
    void *user;
};

/* Take: tunnel_close(). */
MUST_CHECK int tunnel_open_source(
    uv_loop_t *loop, const struct tunnel_options *options, struct err *err, struct tunnel **out);
MUST_CHECK int tunnel_open_destination(
    uv_loop_t *loop, const struct tunnel_options *options, struct err *err, struct tunnel **out);
/* Where the destination end listens. Lent. */
const char *tunnel_address(const struct tunnel *tunnel);
/* Bytes of the stream so far: read from QEMU, or written to it. */
uint64_t tunnel_stream_bytes(const struct tunnel *tunnel);
/* The same on the wire. */
uint64_t tunnel_wire_bytes(const struct tunnel *tunnel);
/* Stops, wherever it is. No callback comes any more. NULL is fine. */
void tunnel_close(struct tunnel *tunnel);

#endif
