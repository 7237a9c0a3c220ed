/* The engine's configuration: one file, one table (options.c), printed by --help. */
#ifndef MIGRATE_OPTIONS_H
#define MIGRATE_OPTIONS_H

#include "base/config.h"
#include "migrate/policy.h"
#include "migrate/tracker.h"

struct options {
    char *migration_id;
    char *key_file, *key_peer;
    char *control_socket, *record_file;
    char *qmp;
    uint64_t qemu_pid;
    char *ram_file;
    uint64_t ram_bytes;
    char *listen, *connect;
    uint64_t stripes;
    uint64_t max_downtime_ms, bandwidth, share, cpu, max_rounds;
    char *cores;
    char *mode, *on_no_convergence;
    uint64_t last_wire, last_raw, last_pace, last_switch_us;
    bool resume;
    bool silent_writes;
    uint64_t delta_memory;
    char *image, *image_key;
    bool receipt;
    bool verify;
    bool correct_clock;
    char *tracker;
    char *disks;
    char *announce_interface, *announce_macs, *announce_addresses, *announce_ports;
    char *log_level;
};

extern const struct config_key options_keys[];

/* How the guest's pages travel (policy.mode). */
enum options_mode {
    MODE_PRECOPY,  /* all before the switch */
    MODE_AUTO,     /* as that, but what the guest writes faster than the link carries follows after the switch */
    MODE_HYBRID,   /* most before the switch, what was written meanwhile after it */
    MODE_POSTCOPY, /* all after the switch */
};

/* When pre-copy cannot end in budget (policy.on_no_convergence). */
enum options_stuck {
    STUCK_CANCEL,   /* the migration is given up */
    STUCK_POSTCOPY, /* the guest is switched, and what is left follows */
    STUCK_THROTTLE, /* the guest is slowed down until it can; where even that is in vain: mode auto switches, others
                       give up */
};

struct options_policy {
    enum options_mode mode;
    enum options_stuck stuck;
    enum tracker_kind tracker;
};

/* Understands policy.mode, policy.on_no_convergence and tracker.kind. */
MUST_CHECK int options_policy(const struct options *options, struct err *err, struct options_policy *out);

/* What is left may follow after the switch when nothing else ends it. */
bool options_postcopy_last(const struct options_policy *chosen);
/* What the policy decides by. */
struct policy_limits options_limits(const struct options *options, const struct options_policy *chosen);

#endif
