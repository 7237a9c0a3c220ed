/* The preflight: what stands in the way of moving a running VM from one host to another, and what should be known
 * before. A table of checks over what both hosts have said of themselves (facts) and what they saw when they looked for
 * this VM (checks); each adds what it finds, so that everything is told at once. Pure.
 *
 * What is not known (a host of an older version, a check that was not made) is not held against a host. */
#ifndef CONTROLLER_PLACEMENT_PREFLIGHT_H
#define CONTROLLER_PLACEMENT_PREFLIGHT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "proto/host.pb-c.h"

struct preflight_host {
    const char *name;
    const Drover__HostFacts *facts;         /* never NULL */
    const Drover__MigrateCheckReply *check; /* NULL: it has not looked */
    bool maintenance, shutting_down;
};

struct preflight_input {
    const char *vm;
    const Drover__VmSpec *spec; /* without the disks that are copied along */
    struct preflight_host from, to;
    bool room_known;
    uint64_t room_bytes;        /* memory for guests that the log has not promised on the target */
    const char *tracker;        /* asked for; empty, "auto" or NULL: the source's best */
    Drover__MigrationMode mode; /* asked for; MIGRATION_MODE_DEFAULT: the VM's */
    bool with_storage;          /* disks are copied along */
};
/* What a move with these options (NULL: none) asks for. Lends them. */
void preflight_options(struct preflight_input *input, const Drover__MigrationOptions *options);

#define PREFLIGHT_FINDINGS_MAX 128 /* two for each of 16 disks, one for each of 8 cards, and the rest */

struct preflight {
    Drover__Finding *findings[PREFLIGHT_FINDINGS_MAX]; /* refusals first, then in the order of the checks */
    size_t count, refusals;
    enum err_code code; /* of the first refusal */
};

/* Take: preflight_clear(). */
void preflight_run(const struct preflight_input *input, struct preflight *out);
void preflight_clear(struct preflight *preflight);
/* The refusals in words, as many as fit, with the number of those that do not. There must be one. Returns -1. */
int preflight_error(const struct preflight *preflight, struct err *err);
/* The tracker that a move from a host with these facts will use. Lent. */
const char *preflight_tracker(const Drover__HostFacts *from, const char *asked);
/* No refusal by what the hosts have said of themselves. */
bool preflight_possible(const struct preflight_input *input);

#endif
