/* pusher: the source's part of post-copy. It names the stale pages, serves those somebody waits for, pushes the rest
 * through the stripes behind them, and begins again with what is missing whenever the connection was lost.
 *
 *     COLD -> ARMING -> ARMED <-> NAMING -> SEALED -> PUSHING <-> SENT -> STOPPED
 *                                                        ^         |
 *                                                     RESUMING <---'    (connection lost, or nothing is heard)
 *
 * Up to SEALED a failure is told through on_failed and the guest goes on here. From SEALED on demands are served. Once
 * the push has begun the guest runs on the destination, so nothing is given up any more: RAM does not change here, and
 * what is sent twice is used once. */
#ifndef MIGRATE_PUSHER_H
#define MIGRATE_PUSHER_H

#include "migrate/sender.h"
#include "migrate/side.h"

struct pusher;

struct pusher_options {
    struct side *side;            /* lent */
    struct wire_peer *peer;       /* the destination; lent */
    void (*on_ready)(void *user); /* pusher_arm() or pusher_name() is done */
    void (*on_failed)(void *user, const struct err *err);
    void *user;
};

/* What went through it. */
struct pusher_stats {
    uint64_t stale_pages, demanded_pages, demanded_wire_bytes;
    struct sender_stats pushed;
    uint32_t resumes;
};

/* Take: pusher_free(). */
struct pusher *pusher_new(const struct pusher_options *options);
/* Asks the destination to get ready; the guest runs here. on_ready follows. */
void pusher_arm(struct pusher *pusher);
/* Names the pages of `stale` that it has not named before; on_ready follows. The guest runs, so that freeing them on
 * the destination costs no blackout. */
void pusher_name(struct pusher *pusher, const struct bitmap *stale);
/* The guest stands still: names the rest. No callback; a failure still comes by on_failed. */
void pusher_seal(struct pusher *pusher, const struct bitmap *stale);
/* In place of all of the above: another process did it, and died. The destination knows what it misses. */
void pusher_inherit(struct pusher *pusher);
/* The guest runs on the destination: pushes. Takes `sender`, whose callbacks must lead to the two functions below;
 * NULL: it asks for stripes itself, as after a lost connection. */
void pusher_push(struct pusher *pusher, struct sender *sender);
void pusher_on_pass(void *user, const struct sender_stats *stats);
void pusher_on_lost(void *user, const struct err *err);
/* A demand (EngineDemand) has come. */
void pusher_on_demand(struct pusher *pusher, const uint8_t *body, size_t len);
void pusher_stats(const struct pusher *pusher, struct pusher_stats *out);
/* Ends it; no callback comes any more. */
void pusher_stop(struct pusher *pusher);
/* After the connection is closed, because calls of it may be under way. NULL is fine. */
void pusher_free(struct pusher *pusher);

#endif
