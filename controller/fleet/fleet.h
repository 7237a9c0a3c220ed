/* The fleet: what the leader knows of the hosts right now. A session begins with HOST_HELLO and lives on heartbeats,
 * which renew the host's lease; everything here is lost with the leadership and told anew to the next leader; the
 * host's hello brings the loads of the last ten minutes.
 *
 * Leases run on the clock that is passed in (CLOCK_BOOTTIME). The controller counts a lease from when the heartbeat
 * arrived and adds a margin for the drift of clocks, the host counts it from when it sent it: the host's always ends
 * first.
 *
 * A heartbeat costs what the host reports, whatever the size of the fleet. Foreign reports are bounded here. One
 * thread. */
#ifndef CONTROLLER_FLEET_FLEET_H
#define CONTROLLER_FLEET_FLEET_H

#include "controller/state/state.h"
#include "proto/host.pb-c.h"
#include "proto/load.h"

#define FLEET_PARTITIONS_MAX 2048

struct fleet_partition {
    char vm_id[STATE_ID_MAX];
    uint64_t generation;
    Drover__PartitionState state;
    struct load load;
    struct load_average demand; /* smoothed; follows the VM from host to host */
    uint64_t uptime_ms;
    bool resuming; /* IN_DOUBT: its host has it run under `generation` */
    char migration_id[STATE_ID_MAX];
    char detail[128];
    char halted[256];                    /* why its guest stands still; empty: it does not */
    Drover__MigrationProgress *progress; /* owned; NULL: none */
    uint64_t first_ms;                   /* when this leader saw it first */
    uint64_t acted_ms;                   /* when reconciling last did something about it */
    const char *warned;                  /* what it last warned of; a literal. NULL: of nothing, or of no more */
};

struct fleet_missing {
    char vm_id[STATE_ID_MAX];
    uint32_t reports; /* in a row that did not have it */
};

struct fleet_host {
    char name[STATE_NAME_MAX];
    struct wire_peer *peer;   /* NULL: connection lost */
    Drover__HostFacts *facts; /* owned */
    uint64_t seen_ms;         /* last hello or heartbeat */
    uint64_t hello_ms;
    bool shutting_down; /* the host says that it is, and takes no guests; of the connection */
    struct load load;
    struct load_average overhead; /* what it uses besides its partitions */
    struct load_ring ring;
    struct fleet_partition *partitions; /* by vm_id */
    size_t partition_count;
    struct fleet_missing *missing; /* kept by reconciling */
    size_t missing_count;
};

struct fleet;
struct fleet *fleet_new(uint32_t lease_ms);
void fleet_free(struct fleet *fleet);
/* Forgets all sessions. */
void fleet_clear(struct fleet *fleet);
uint32_t fleet_lease_ms(const struct fleet *fleet);

/* Begins or renews the session of host `name`; `host` is lent until the fleet is cleared or the host is forgotten. */
MUST_CHECK int fleet_hello(struct fleet *fleet, const char *name, struct wire_peer *peer,
    const Drover__HostHelloRequest *hello, uint64_t now_ms, struct err *err, struct fleet_host **host);
/* Takes in a heartbeat. */
MUST_CHECK int fleet_heartbeat(struct fleet *fleet, struct fleet_host *host, const Drover__HeartbeatRequest *heartbeat,
    uint64_t now_ms, struct err *err);
/* The connection is lost; the lease runs on. */
void fleet_disconnected(struct fleet *fleet, const struct wire_peer *peer);
/* The host is no longer part of the cluster. */
void fleet_forget(struct fleet *fleet, const char *name);

/* Of what a host says of itself: is it bounded as it has to be? NULL is not. */
MUST_CHECK int fleet_facts_check(const Drover__HostFacts *facts, struct err *err);

struct fleet_host *fleet_find(const struct fleet *fleet, const char *name); /* NULL: no session */
size_t fleet_count(const struct fleet *fleet);
struct fleet_host *fleet_at(const struct fleet *fleet, size_t i); /* by name */
bool fleet_up(const struct fleet *fleet, const struct fleet_host *host, uint64_t now_ms);
/* How long a host may hold its lease after it was heard, as the controllers count. */
uint32_t fleet_lease_most_ms(const struct fleet *fleet);
uint64_t fleet_lease_left_ms(const struct fleet *fleet, const struct fleet_host *host, uint64_t now_ms);
struct fleet_partition *fleet_partition(const struct fleet_host *host, const char *vm_id); /* NULL: not reported */
/* How the VM is. A host calls a partition incoming until its engine has ended; one whose hand-over the log knows runs.
 */
Drover__PartitionState fleet_vm_state(
    const struct fleet_host *host, const struct fleet_partition *partition, const struct state_vm *vm);

#endif
