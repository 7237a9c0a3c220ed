/* The configuration of drover-hostd: the struct, the table of its keys (which is the manual) and the checks that one
 * key alone cannot do. Pure, but for the look at the machine that fills in capacities which are not set. */
#ifndef HOSTD_OPTIONS_H
#define HOSTD_OPTIONS_H

#include "base/config.h"
#include "proto/peerlist.h"

#define OPTIONS_CONTROLLERS_MAX 9
#define OPTIONS_REUSE_MAX       160 /* the engine's paths of images are bounded */

struct options {
    char *key;
    char *directory;
    char *memory_directory;
    char *migration_address;
    char *controllers;               /* one "KEY ADDRESS" a line */
    double cpu_cores, machine_cores; /* for guests; of the machine */
    uint64_t memory_bytes;
    bool memory_given;        /* not left to us */
    bool memory_by_directory; /* `memory_bytes` is what the file system of `memory_directory` holds */
    uint64_t migration_bandwidth, migration_cpu_percent;
    double disk_iops;
    char *bridge;
    char *uplink;
    char *metrics_listen;
    char *qemu;
    char *accelerator;
    char *tracker;
    char *engine;
    char *qemu_img;
    char *storage_directories; /* one a line */
    uint64_t shutdown_seconds;
    char *shim;
    uint64_t tcg_cache_mb;
    uint64_t reuse_bytes, reuse_hours;
    char *reuse_directory;
    char *log_level;
};

extern const struct config_key options_keys[];

/* Loads and checks `path`, and replaces what was left to us (capacities, program paths) by what the machine says.
 * Take: options_free(). */
MUST_CHECK int options_load(const char *path, struct err *err, struct options *out);
/* Bounds the memory for guests by what the file system of `memory_directory` holds, and warns where more was set. */
void options_bound_memory(struct options *options, uint64_t directory_bytes);
void options_free(struct options *options);
/* Reads the list of controllers; `out` has room for OPTIONS_CONTROLLERS_MAX. */
MUST_CHECK int options_controllers(
    const struct options *options, struct err *err, struct peerlist_entry *out, size_t *count);

#endif
