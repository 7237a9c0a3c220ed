/* What Prometheus gets. Members all tell their view of the log; fleet, jobs and migrations are told by the leader
 * alone, so that sums over all controllers are right. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "controller/controller.h"
#include "controller/foretold.h"

static const double duration_bounds[] = {0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600};
static const double blackout_bounds[] = {0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5};
static const double ratio_bounds[] = {0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2, 4, 10};
#define COUNT(bounds) (sizeof(bounds) / sizeof *(bounds))

void metrics_setup(struct controller *c)
{
    c->counters.duration_s =
        (struct metrics_histogram){.bounds = duration_bounds, .bound_count = COUNT(duration_bounds)};
    c->counters.blackout_s = c->counters.network_blackout_s =
        (struct metrics_histogram){.bounds = blackout_bounds, .bound_count = COUNT(blackout_bounds)};
    c->counters.foretold_duration = c->counters.foretold_blackout = c->counters.foretold_bytes =
        (struct metrics_histogram){.bounds = ratio_bounds, .bound_count = COUNT(ratio_bounds)};
}

void metrics_job_finished(struct controller *c, const struct state_job *job)
{
    const Drover__Job *j = job->job;
    if (j->kind != DROVER__JOB_KIND__JOB_VM_MIGRATE)
        return;
    bool succeeded = j->state == DROVER__JOB_STATE__JOB_SUCCEEDED;
    c->counters.migrations[succeeded ? 0 : j->state == DROVER__JOB_STATE__JOB_FAILED ? 1 : 2]++;
    if (j->migration)
        c->counters.migration_wire_bytes += j->migration->wire_bytes;
    if (!succeeded || !j->migration)
        return;
    metrics_observe(&c->counters.duration_s, (double)j->migration->total_us / 1e6);
    metrics_observe(&c->counters.blackout_s, (double)j->migration->blackout_us / 1e6);
    if (j->migration->network_blackout_us)
        metrics_observe(&c->counters.network_blackout_s, (double)j->migration->network_blackout_us / 1e6);
    struct foretold_ratios ratios;
    if (!foretold_compare(j->migration, &ratios))
        return;
    metrics_observe(&c->counters.foretold_duration, ratios.duration);
    metrics_observe(&c->counters.foretold_blackout, ratios.blackout);
    metrics_observe(&c->counters.foretold_bytes, ratios.bytes);
}

static void collect_raft(const struct controller *c, struct metrics *m)
{
    struct replica_status status;
    struct wire_counters wire;
    replica_status(c->replica, &status);
    wire_counters(c->wire, &wire);
    metrics_gauge(m, "drover_raft_term", "Term of the replicated log.", (double)status.term);
    metrics_gauge(m, "drover_raft_commit_index", "Index of the last committed entry.", (double)status.commit_index);
    metrics_gauge(m, "drover_raft_applied_index", "Index of the last applied entry.", (double)status.applied_index);
    metrics_gauge(m, "drover_raft_is_leader", "1 on the controller that leads.", c->leader);
    metrics_counter(
        m, "drover_raft_elections_total", "Elections this controller has taken part in.", (double)status.elections);
    metrics_counter(m, "drover_raft_snapshots_total", "Snapshots taken.", (double)status.snapshots_taken);
    metrics_counter(m, "drover_wire_messages_received_total", "Messages received.", (double)wire.messages_in);
    metrics_counter(m, "drover_wire_messages_sent_total", "Messages sent.", (double)wire.messages_out);
    metrics_counter(m, "drover_wire_received_bytes_total", "Bytes received.", (double)wire.bytes_in);
    metrics_counter(m, "drover_wire_sent_bytes_total", "Bytes sent.", (double)wire.bytes_out);
    metrics_counter(m, "drover_wire_messages_rejected_total", "Messages dropped as malformed, oversized or unexpected.",
        (double)wire.rejected);
    metrics_counter(m, "drover_wire_refused_total", "Connections refused for their key.", (double)wire.refused);
}

static void collect_counts(struct controller *c, struct metrics *m)
{
    static const char *const names[] = {"queued", "running", "cancelling", "succeeded", "failed", "cancelled"};
    struct state_counts counts;
    state_counts(c->state, &counts);
    uint64_t now_ms = clock_now_ms();
    size_t up = 0;
    for (size_t i = 0; i < fleet_count(c->fleet); i++)
        up += fleet_up(c->fleet, fleet_at(c->fleet, i), now_ms);
    metrics_family(m, "drover_hosts", METRIC_GAUGE, "Hosts of the cluster by state.");
    metrics_sample(m, (double)up, "state", "up", NULL);
    metrics_sample(m, (double)counts.hosts - (double)up, "state", "unreachable", NULL);
    metrics_family(m, "drover_vms", METRIC_GAUGE, "VMs by whether a host owns them.");
    metrics_sample(m, counts.vms_owned, "state", "owned", NULL);
    metrics_sample(m, (double)counts.vms - (double)counts.vms_owned, "state", "stopped", NULL);
    metrics_family(m, "drover_jobs", METRIC_GAUGE, "Jobs that are still kept, by state.");
    for (size_t i = 1; i < COUNT(names); i++)
        metrics_sample(m, counts.jobs[i], "state", names[i], NULL);
    metrics_gauge(m, "drover_optimizer_automatic", "1 when hot hosts are relieved automatically.",
        placement_automatic(c->placement));
    metrics_gauge(m, "drover_optimizer_imbalance",
        "Standard deviation of the hosts' utilization, summed over resources.",
        placement_imbalance(c->placement, now_ms, clock_wall_ms()));
}

enum host_value {
    HOST_CPU,
    HOST_CPU_CAPACITY,
    HOST_MEMORY,
    HOST_MEMORY_CAPACITY,
    HOST_READ,
    HOST_WRITE,
    HOST_PARTITIONS
};

static double host_value(const struct fleet_host *h, enum host_value which)
{
    const Drover__Capacity *capacity = h->facts ? h->facts->capacity : NULL;
    switch (which) {
    case HOST_CPU:
        return h->load.cpu_cores;
    case HOST_CPU_CAPACITY:
        return capacity ? capacity->cpu_cores : 0;
    case HOST_MEMORY:
        return h->load.memory_bytes;
    case HOST_MEMORY_CAPACITY:
        return capacity ? (double)capacity->memory_bytes : 0;
    case HOST_READ:
        return h->load.read_iops;
    case HOST_WRITE:
        return h->load.write_iops;
    case HOST_PARTITIONS:
        return (double)h->partition_count;
    }
    return 0;
}

static void collect_hosts(const struct controller *c, struct metrics *m)
{
    static const struct {
        const char *name, *help;
        enum host_value value;
    } families[] = {
        {"drover_host_cpu_cores", "CPU cores busy with partitions and daemons.", HOST_CPU},
        {"drover_host_cpu_capacity_cores", "CPU cores of the host.", HOST_CPU_CAPACITY},
        {"drover_host_memory_bytes", "Memory in use.", HOST_MEMORY},
        {"drover_host_memory_capacity_bytes", "Memory for guests.", HOST_MEMORY_CAPACITY},
        {"drover_host_disk_read_iops", "Disk reads per second.", HOST_READ},
        {"drover_host_disk_write_iops", "Disk writes per second.", HOST_WRITE},
        {"drover_host_partitions", "Partitions the host reports.", HOST_PARTITIONS},
    };
    for (size_t f = 0; f < COUNT(families) && fleet_count(c->fleet); f++) {
        metrics_family(m, families[f].name, METRIC_GAUGE, families[f].help);
        for (size_t i = 0; i < fleet_count(c->fleet); i++) {
            const struct fleet_host *host = fleet_at(c->fleet, i);
            metrics_sample(m, host_value(host, families[f].value), "host", host->name, NULL);
        }
    }
}

enum vm_value { VM_CPU, VM_MEMORY, VM_READ, VM_WRITE, VM_RX, VM_TX };

static double vm_value(const struct fleet_partition *p, enum vm_value which)
{
    const double values[] = {p->load.cpu_cores, p->load.memory_bytes, p->load.read_iops, p->load.write_iops,
        p->load.rx_bytes_per_s, p->load.tx_bytes_per_s};
    return values[which];
}

static void collect_vms(const struct controller *c, struct metrics *m)
{
    static const struct {
        const char *name, *help;
        enum vm_value value;
    } families[] = {
        {"drover_vm_cpu_cores", "CPU cores the VM keeps busy.", VM_CPU},
        {"drover_vm_memory_bytes", "Resident memory of the VM.", VM_MEMORY},
        {"drover_vm_disk_read_iops", "Disk reads of the VM per second.", VM_READ},
        {"drover_vm_disk_write_iops", "Disk writes of the VM per second.", VM_WRITE},
        {"drover_vm_network_receive_bytes_per_second", "Bytes the VM receives per second.", VM_RX},
        {"drover_vm_network_transmit_bytes_per_second", "Bytes the VM sends per second.", VM_TX},
    };
    struct state_vm *vms;
    size_t count = fleet_count(c->fleet) ? state_vms(c->state, "", INT64_MAX, &vms) : 0;
    for (size_t f = 0; f < COUNT(families) && count; f++) {
        metrics_family(m, families[f].name, METRIC_GAUGE, families[f].help);
        for (size_t i = 0; i < count; i++) {
            const struct fleet_host *host = vms[i].owner[0] ? fleet_find(c->fleet, vms[i].owner) : NULL;
            const struct fleet_partition *p = host ? fleet_partition(host, vms[i].id) : NULL;
            if (p)
                metrics_sample(m, vm_value(p, families[f].value), "vm", vms[i].name, "host", vms[i].owner, NULL);
        }
    }
    if (fleet_count(c->fleet))
        free(vms);
}

static void collect_migrations(const struct controller *c, struct metrics *m)
{
    static const char *const names[] = {"succeeded", "failed", "cancelled"};
    metrics_family(m, "drover_migrations_total", METRIC_COUNTER, "Migrations that have ended, by result.");
    for (size_t i = 0; i < COUNT(names); i++)
        metrics_sample(m, (double)c->counters.migrations[i], "result", names[i], NULL);
    metrics_counter(m, "drover_migration_wire_bytes_total", "Bytes migrations have sent over the network.",
        (double)c->counters.migration_wire_bytes);
    metrics_histogram(
        m, "drover_migration_duration_seconds", "Duration of successful migrations.", &c->counters.duration_s);
    metrics_histogram(m, "drover_migration_blackout_seconds", "How long guests stood still in successful migrations.",
        &c->counters.blackout_s);
    metrics_histogram(m, "drover_migration_network_blackout_seconds",
        "From the stop of guests until the network heard them again, where it did soon.",
        &c->counters.network_blackout_s);
    metrics_histogram(m, "drover_migration_forecast_duration_ratio",
        "Duration of migrations, divided by what was forecast: 1 is right, 2 took twice as long.",
        &c->counters.foretold_duration);
    metrics_histogram(m, "drover_migration_forecast_blackout_ratio", "The same for the time guests stood still.",
        &c->counters.foretold_blackout);
    metrics_histogram(
        m, "drover_migration_forecast_bytes_ratio", "The same for bytes on the wire.", &c->counters.foretold_bytes);
}

void metrics_collect(void *controller, struct metrics *m)
{
    struct controller *c = controller;
    metrics_process(m, "drover-controller");
    collect_raft(c, m);
    collect_migrations(c, m);
    if (!c->leader)
        return;
    collect_counts(c, m);
    collect_hosts(c, m);
    collect_vms(c, m);
}
