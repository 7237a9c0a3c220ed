/* The controller's configuration file: every key with its meaning and default is in options.c. */
#ifndef CONTROLLER_OPTIONS_H
#define CONTROLLER_OPTIONS_H

#include "base/config.h"
#include "controller/state/state.h"
#include "optimizer/optimizer.h"

#define OPTIONS_MEMBERS_MAX 16
#define OPTIONS_ADMINS_MAX  64

struct options_admin {
    char name[STATE_NAME_MAX];
    uint8_t public_key[KEY_BYTES];
};

struct options {
    /* as written */
    char *log_level, *name, *key, *directory, *raft_listen, *api_listen, *metrics_listen, *member_lines, *admin_lines;
    bool join, optimizer_automatic;
    uint64_t lease_ms, heartbeat_ms, election_ms, raft_heartbeat_ms, snapshot_threshold, hold_s, rest_s, settle_s;
    double high_cpu, low_cpu, high_memory, low_memory, high_iops, low_iops, min_gain;
    /* made of it */
    struct state_member members[OPTIONS_MEMBERS_MAX];
    size_t member_count;
    struct options_admin admins[OPTIONS_ADMINS_MAX];
    size_t admin_count;
    struct optimizer_settings optimizer;
};

/* Reads and checks the file. Take: options_free(). */
MUST_CHECK int options_load(const char *path, struct err *err, struct options *out);
/* The same from text; `name` is for messages. */
MUST_CHECK int options_parse(const char *name, const char *text, struct err *err, struct options *out);
void options_free(struct options *options);
void options_print_manual(FILE *out);

#endif
