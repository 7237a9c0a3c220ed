/* The engine's configuration: one file, one table (options.c), printed by --help. */
#ifndef MIGRATE_OPTIONS_H
#define MIGRATE_OPTIONS_H

#include "base/config.h"

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
    uint64_t max_downtime_ms, bandwidth, max_rounds;
    bool verify;
    char *announce_interface, *announce_macs;
    char *log_level;
};

extern const struct config_key options_keys[];

#endif
