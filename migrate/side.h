/* side: what both sides of a migration have in common: loop, keys, RAM, control socket, QEMU, the wire context. */
#ifndef MIGRATE_SIDE_H
#define MIGRATE_SIDE_H

#include <uv.h>

#include "migrate/control.h"
#include "migrate/guest.h"
#include "migrate/options.h"
#include "migrate/quota.h"
#include "migrate/ram.h"
#include "proto/wire.h"
#include "proto/wire.pb-c.h"

struct side {
    uv_loop_t loop;
    const struct options *options; /* lent */
    uint8_t peer_key[KEY_BYTES];
    struct ram ram;
    struct quota quota;
    struct control *control;
    struct guest *guest;
    struct wire *wire;
    void (*on_cancel)(void *user);
    void (*on_share)(void *user);
    void *user;
    bool closing; /* nobody is called any more */
};

/* Opens everything; without `events` nothing is asked of QEMU, and `guest` stays NULL. On failure side_close() releases
 * what there is. `on_cancel` and `on_share` (this host's share of the link has changed, and the quota with it) get
 * `user`, as `events` does. */
MUST_CHECK int side_open(struct side *side, const struct options *options, const struct guest_events *events,
    void (*on_cancel)(void *user), void (*on_share)(void *user), void *user, struct err *err);
void side_close(struct side *side);

/* Tells the log what this engine may use. */
void side_log_quota(const struct side *side);

/* Tells the clients and the log. */
void side_phase(struct side *side, const char *phase);
void side_failed(struct side *side, const struct err *err);
/* A command that cannot be followed. */
void side_refused(struct side *side, const char *message);

/* Hashes all RAM on another thread; `fn` comes on the loop, unless the side is closed before. */
typedef void (*side_hash_fn)(void *user, const struct err *err, const char *hash);
void side_hash(struct side *side, side_hash_fn fn, void *user);

/* Writes what the page cache holds of the guest's disks to stable storage, on another thread. QEMU does the same with
 * the guest stopped; what is clean by then costs no blackout. A file that cannot be opened is left to QEMU. `fn` as
 * above. */
void side_flush(struct side *side, void (*fn)(void *user), void *user);

/* Error of a peer's message (which may leave it out). */
void side_error_from(const Drover__ErrorInfo *info, struct err *err);

#endif
