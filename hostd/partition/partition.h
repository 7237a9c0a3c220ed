/* The partitions of this host: running instances of VMs, from their first record to their last file.
 *
 * Requests come in as messages of proto/host.proto, checked here; each answers exactly once, now or later. What happens
 * to partitions by itself (a guest that shuts down, an engine that ends) is told by on_change, so that the controllers
 * hear of it soon. hostd may be killed at any instruction: partitions_open() finds everything again and goes on.
 *
 * Ownership: a partition runs only under the generation it was granted; the rules are in ARCHITECTURE.md, the decisions
 * in hostd/decision.h, the states in state.h. Single-threaded. */
#ifndef HOSTD_PARTITION_PARTITION_H
#define HOSTD_PARTITION_PARTITION_H

#include <uv.h>

#include "hostd/action.h"
#include "hostd/cgroup.h"
#include "hostd/hypervisor/hypervisor.h"
#include "hostd/net.h"
#include "hostd/options.h"
#include "hostd/outcomes.h"
#include "hostd/partition/record.h"

struct partitions;
struct partition;

struct partitions_env {
    uv_loop_t *loop;
    const struct options *options;
    struct hypervisor *hypervisor;
    struct net *net;
    struct cgroups *cgroups;
    struct ledger *ledger;
    struct outcomes *outcomes;
    struct visits *visits;
    struct actions *actions;
    const char *boot_id;
    /* Something the controllers should hear of soon: a state, an outcome. */
    void (*on_change)(void *user);
    void *user;
};

/* Adopts what an earlier hostd left. `env` is copied. Take: partitions_close(). */
MUST_CHECK int partitions_open(const struct partitions_env *env, struct err *err, struct partitions **out);
/* Lets go of all of them: guests and engines go on. */
void partitions_close(struct partitions *partitions);
/* The host is about to go down: presses the power button of every guest that runs, once in a while, and tells the
 * controllers. From then on none should begin here; called again, for those that boot, or are on their way here or
 * elsewhere. */
void partitions_shut_down(struct partitions *partitions);
bool partitions_shutting_down(const struct partitions *partitions);
/* This host's name in the cluster, for records of migrations. */
void partitions_set_host_name(struct partitions *partitions, const char *name);

/* Requests; each takes `request` and sees to its answer. Messages are lent for the call. */
void partition_start(struct partitions *ps, const Drover__PartitionStartRequest *message, struct wire_request *request);
void partition_stop(struct partitions *ps, const Drover__PartitionStopRequest *message, struct wire_request *request);
void migrate_check(struct partitions *ps, const Drover__MigrateCheckRequest *message, struct wire_request *request);
void migrate_prepare(struct partitions *ps, const Drover__MigratePrepareRequest *message, struct wire_request *request);
void migrate_start(struct partitions *ps, const Drover__MigrateStartRequest *message, struct wire_request *request);
void migrate_cancel(struct partitions *ps, const Drover__MigrateCancelRequest *message, struct wire_request *request);
void migrate_query(struct partitions *ps, const Drover__MigrateQueryRequest *message, struct wire_request *request);
void migrate_forecast(
    struct partitions *ps, const Drover__MigrateForecastRequest *message, struct wire_request *request);
void migrate_resolve(struct partitions *ps, const Drover__MigrateResolveRequest *message, struct wire_request *request);

void storage_check(struct partitions *ps, const Drover__StorageCheckRequest *message, struct wire_request *request);
void storage_move(struct partitions *ps, const Drover__StorageMoveRequest *message, struct wire_request *request);
void storage_query(struct partitions *ps, const Drover__StorageQueryRequest *message, struct wire_request *request);
void storage_finish(struct partitions *ps, const Drover__StorageFinishRequest *message, struct wire_request *request);
void storage_leave(struct partitions *ps, const Drover__StorageLeaveRequest *message, struct wire_request *request);

/* Reports of all partitions. The list is the caller's: reports_free(); strings in it are lent until something changes.
 * `sequence` names this report; partitions_heard() says that the controllers got it, which ends what was only kept for
 * it. With `hello` there is what only a new leader needs, too. */
struct reports {
    Drover__PartitionReport *items;
    Drover__MigrationProgress *progress;
    Drover__PartitionReport **list;
    size_t count;
};
void partitions_report(struct partitions *ps, uint64_t sequence, bool hello, struct reports *out);
void reports_free(struct reports *reports);
void partitions_heard(struct partitions *ps, uint64_t sequence);

/* The next partition whose migration needs a word of the controllers that they have not been asked for: in doubt, or
 * its engine is not answered any more. NULL: none. Lent. */
const struct record *partitions_doubt(struct partitions *ps, Drover__MigrationOutcome *outcome);
void partitions_doubt_told(struct partitions *ps, const char *migration_id, Drover__MigrationOutcome outcome);

/* Walking: NULL begins, NULL ends. A partition is lent until the loop runs again. */
struct partition *partitions_next(struct partitions *ps, struct partition *after);
struct partition *partition_find(struct partitions *ps, const char *vm_id);
const struct record *partition_record(const struct partition *p);
const char *partition_directory(const struct partition *p);
struct guest *partition_guest(const struct partition *p);                 /* NULL: no process */
bool partition_engine(const struct partition *p, struct process_id *out); /* false: none */
const char *partition_tap(const struct partition *p, size_t nic);
uint64_t partition_uptime_ms(const struct partition *p, uint64_t now_ms);

/* Kept for hostd/stats.c: what the partition uses, and how that is counted. */
struct usage;
struct usage **partition_usage(struct partition *p); /* freed with free() when the partition goes */
const Drover__Load *partition_load(const struct partition *p);
void partition_set_load(struct partition *p, const Drover__Load *load, const Drover__Load *demand);

#endif
