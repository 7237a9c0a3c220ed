/* The record of a partition: what hostd must know to find it again, in partition.json of its directory. It is replaced
 * atomically before anything happens that depends on it, so that hostd may be killed at any instruction. Pure, but for
 * record_load() and record_save(). */
#ifndef HOSTD_PARTITION_RECORD_H
#define HOSTD_PARTITION_RECORD_H

#include "base/process.h"
#include "hostd/partition/paths.h"
#include "hostd/partition/state.h"
#include "proto/wire.h"
#include "storage/place.h"

#define RECORD_TEXT_MAX 256
#define RECORD_PATH_MAX 1025 /* of a disk, with the NUL */

/* The migration under way, or in doubt. */
struct record_migration {
    char id[PATHS_ID_MAX];          /* empty: none */
    bool incoming;                  /* this host is the destination */
    bool disks;                     /* those the guest writes to move, too */
    uint64_t generation;            /* the destination runs it under */
    uint64_t bandwidth_bytes_per_s; /* it was asked to keep to; 0: none */
    char to_host[WIRE_PRINCIPAL_MAX];
    char address[WIRE_ADDRESS_MAX]; /* destination: where the engine listens; empty: not yet */
    struct process_id engine;
};

/* A disk on its way to another file (storage/place.h says what its files mean). */
struct record_storage {
    char id[PATHS_ID_MAX]; /* empty: none */
    uint32_t disk;         /* number in the definition */
    char source[RECORD_PATH_MAX], target[RECORD_PATH_MAX];
    char format[8];
    struct place_where where; /* of the target, from before it began */
    bool shallow;
    uint64_t bandwidth_bytes_per_s;
};

struct record {
    char vm_id[PATHS_ID_MAX];
    uint64_t generation;
    enum partition_state state;
    Drover__VmSpec *spec; /* owned */
    char boot_id[PATHS_ID_MAX];
    struct process_id guest; /* QEMU; pid 0: none was started */
    uint64_t uptime_base_ms; /* the guest's uptime when `uptime_from_ms` (CLOCK_BOOTTIME) was */
    uint64_t uptime_from_ms;
    uint64_t stop_by_ms; /* STOPPING: how long (CLOCK_BOOTTIME) the guest has to shut down by itself; 0: no longer */
    char detail[RECORD_TEXT_MAX];
    struct record_migration migration;
    struct record_storage storage;
};

/* Take: free(). */
char *record_format(const struct record *record);
/* Everything in it is checked. Take: record_clear(). */
MUST_CHECK int record_parse(const char *text, size_t len, struct err *err, struct record *out);
void record_clear(struct record *record);

MUST_CHECK int record_save(const char *path, const struct record *record, struct err *err);
MUST_CHECK int record_load(const char *path, struct err *err, struct record *out);

#endif
