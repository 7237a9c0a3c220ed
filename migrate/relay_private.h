/* Private to the relay's files.
 *
 *   relay.c         connections, and what passes through them
 *   relay_open.c    opening and closing
 *   relay_watch.c   source: does the destination go on, and answering QEMU in its stead */
#ifndef MIGRATE_RELAY_PRIVATE_H
#define MIGRATE_RELAY_PRIVATE_H

#include "base/buf.h"
#include "base/loop.h"
#include "migrate/nbd.h"
#include "migrate/relay.h"
#include "migrate/seal.h"

/* How far a link is at some moment. */
struct link_look {
    uint64_t arrived_bytes; /* at the destination's kernel */
    uint64_t came_bytes;    /* from there */
    bool queue;             /* more is on its way there */
};

/* One connection of QEMU. Handles close asynchronously; the link is freed with the last of them. */
struct link {
    struct link *prev, *next;
    struct relay *relay; /* NULL: the relay is closed */
    uv_pipe_t local;     /* QEMU */
    uv_tcp_t remote;     /* the other relay */
    uv_connect_t connect;
    struct loop_timer *timer;
    struct seal *closing, *opening;
    struct buf in;                  /* of the network: a part of a message */
    size_t local_held, remote_held; /* bytes written and not taken yet */
    bool local_reading, remote_reading;
    uint32_t number;
    struct nbd nbd;                  /* source: what QEMU waits for */
    uint64_t sent_bytes, came_bytes; /* source: that the kernel has been given, that have come from there */
    struct link_look look;           /* source: the last */
    enum nbd_wait waits;             /* source: what for, at the last look */
    uint32_t still;                  /* source: for so many looks nothing has moved although QEMU waits */
    bool proved;                     /* destination: the first message was the source's */
    bool connected;
    bool alone; /* source: QEMU is answered here, and nothing goes to the destination or comes from there any more */
    bool closed;
    unsigned handles;
};

struct relay {
    uv_loop_t *loop;
    bool source;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } listener;
    char path[108];
    struct sockaddr_storage to, from; /* source: the other relay; destination: its host */
    char address[128];
    uint8_t key[SEAL_KEY_BYTES];
    struct link *links;
    struct relay_watch watch;   /* source */
    struct loop_timer *looking; /* source */
    bool alone;                 /* source: and so is every link that can be */
    uint32_t opened;            /* source: numbers given so far */
    bool used[RELAY_LINKS_MAX]; /* destination: numbers seen */
    uint64_t wire_bytes;
    unsigned handles;
};

/* relay.c */
struct link *relay_link_new(struct relay *relay);
void relay_link_close(struct link *link);
/* Reads of both ends what may be read. */
void relay_link_pump(struct link *link);
/* Gives QEMU `len` bytes. */
void relay_link_tell(struct link *link, const void *data, size_t len);
void relay_source_accept(uv_stream_t *listener, int status);
void relay_destination_accept(uv_stream_t *listener, int status);

/* relay_watch.c; all on the source */
void relay_watch_start(struct relay *relay);
/* The destination's end is gone, or does nothing: tells the owner. Unless QEMU is answered alone from then on, the
 * connection is closed. */
void relay_link_lost(struct link *link, const struct err *err);
/* Answers QEMU what it has asked. False: that cannot be done. */
bool relay_link_answer(struct link *link);

#endif
