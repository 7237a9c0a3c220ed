/* Private to the tunnel's files. */
#ifndef MIGRATE_TUNNEL_PRIVATE_H
#define MIGRATE_TUNNEL_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "migrate/pack.h"
#include "migrate/seal.h"
#include "migrate/tunnel.h"

#define TUNNEL_POLL_MS   100
#define TUNNEL_PLAIN_MAX (PACK_HEAD_BYTES + PACK_BYTES_MAX)
#define TUNNEL_FRAME_MAX (TUNNEL_PLAIN_MAX + SEAL_OVERHEAD)

struct tunnel {
    struct tunnel_options options;
    char path[108];
    void *zmq, *socket;
    struct seal *out, *in;
    uv_async_t wake;
    pthread_t thread;
    bool started, told;
    atomic_bool stop;
    _Atomic uint64_t stream_bytes, wire_bytes;
    int listener, stream; /* sockets to QEMU */
    char address[64];
    uint64_t acked_bytes; /* of messages: source: heard of; destination: told */
    uint64_t heard_ns;
    uint64_t silence_ms; /* after which the peer is given up: TUNNEL_SILENCE_MS, but in tests */
    pthread_mutex_t lock;
    struct err failure; /* under the lock */
    bool over;          /* under the lock */
    uint8_t piece[PACK_BYTES_MAX], plain[TUNNEL_PLAIN_MAX], frame[TUNNEL_FRAME_MAX];
};

/* All but the sockets and the thread. */
MUST_CHECK int tunnel_new(uv_loop_t *loop, const struct tunnel_options *options, enum seal_direction out_direction,
    struct err *err, struct tunnel **out);
MUST_CHECK int tunnel_start(struct tunnel *tunnel, void *(*main)(void *tunnel), struct err *err);
/* In the thread: it ends. */
void tunnel_fail(struct tunnel *tunnel, const struct err *err);

#endif
