/* Who a public key belongs to: for wire, which asks at every connection and every message.
 *
 * Hosts, members and users are in the state. Administrators may also be named in the configuration file, so that a new
 * cluster has one. Until the state knows the members (a new or a joining controller, or one that has just started),
 * controllers are those of the configuration file and of Raft's own configuration; after that only the log counts, so
 * that a removed member is out. */
#ifndef CONTROLLER_AUTH_AUTH_H
#define CONTROLLER_AUTH_AUTH_H

#include "controller/options.h"
#include "raft/replica.h"

struct auth {
    const struct options *options;
    struct state *state;
    struct replica *const
        *replica; /* lent; points at NULL while there is none: before it is open and once it is gone */
};

/* A wire_auth_fn; `user` is a struct auth. */
bool auth_lookup(void *user, const uint8_t public_key[KEY_BYTES], struct principal *out);

#endif
