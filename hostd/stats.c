#include "hostd/stats.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/loop.h"
#include "base/process.h"
#include "hostd/console.h"
#include "hostd/rates.h"

#define STATS_INTERVAL_MS 1000

/* Of one partition; lives and dies with it. */
struct usage {
    struct rate cpu, engine_cpu, reads, writes, rx, tx;
    struct process_id engine; /* that engine_cpu is of */
    struct load_average demand;
    bool asked; /* QEMU has not answered the last question yet */
};

struct stats {
    struct partitions *partitions;
    struct cgroups *cgroups;
    struct net *net;
    struct loop_timer *timer;
    struct rate own_cpu;
    struct load used, rest;       /* while looking: by the partitions, by hostd and the engines */
    Drover__Load host;            /* both */
    struct load_average overhead; /* `rest`, smoothed */
    struct load_ring ring;        /* of `host` */
};

/* A question to QEMU that is under way; it may outlive the partition. */
struct question {
    struct stats *stats;
    char vm_id[PATHS_ID_MAX];
};

static void disks_known(void *user, const struct err *err, const struct guest_disk_ops *ops)
{
    struct question *question = user;
    if (!err || err->code != ERR_CANCELLED) { /* cancelled: the guest is being let go of, and stats may be gone */
        struct partition *p = partition_find(question->stats->partitions, question->vm_id);
        struct usage *usage = p ? *partition_usage(p) : NULL;
        if (usage) {
            usage->asked = false;
            if (!err) {
                uint64_t now_ns = clock_now_ns();
                rate_update(&usage->reads, ops->reads, now_ns);
                rate_update(&usage->writes, ops->writes, now_ns);
            }
        }
    }
    free(question);
}

static void ask_disks(struct stats *stats, struct partition *p, struct usage *usage)
{
    if (usage->asked || partition_record(p)->spec->n_disks == 0)
        return;
    struct question *question = mem_zalloc(sizeof *question);
    question->stats = stats;
    strcpy(question->vm_id, partition_record(p)->vm_id);
    usage->asked = guest_disk_ops(partition_guest(p), disks_known, question);
    if (!usage->asked)
        free(question);
}

static void look_network(struct stats *stats, struct partition *p, struct usage *usage, uint64_t now_ns)
{
    struct net_counters sum = {0};
    for (size_t i = 0; i < partition_record(p)->spec->n_nics; i++) {
        struct net_counters one;
        if (net_tap_counters(stats->net, partition_tap(p, i), NULL, &one) < 0)
            continue;
        sum.rx_bytes += one.rx_bytes;
        sum.tx_bytes += one.tx_bytes;
    }
    rate_update(&usage->rx, sum.rx_bytes, now_ns);
    rate_update(&usage->tx, sum.tx_bytes, now_ns);
}

/* The engine's CPU and memory are the host's burden, not the VM's demand. */
static void look_engine(struct stats *stats, struct partition *p, struct usage *usage, uint64_t now_ns)
{
    struct process_id engine;
    struct process_usage used;
    if (!partition_engine(p, &engine) || process_usage(engine.pid, NULL, &used) < 0)
        return;
    if (engine.pid != usage->engine.pid || engine.start_ticks != usage->engine.start_ticks)
        usage->engine_cpu = (struct rate){0};
    usage->engine = engine;
    stats->rest.cpu_cores += rate_update(&usage->engine_cpu, used.cpu_ns, now_ns) / 1e9;
}

static void look_partition(struct stats *stats, struct partition *p, uint64_t now_ns)
{
    struct usage **slot = partition_usage(p);
    struct guest *guest = partition_guest(p);
    Drover__Load now = DROVER__LOAD__INIT, demand = DROVER__LOAD__INIT;
    struct process_usage used;
    uint64_t cpu_ns;
    if (!guest || process_usage(guest_process(guest).pid, NULL, &used) < 0)
        return;
    if (!*slot)
        *slot = mem_zalloc(sizeof **slot);
    struct usage *usage = *slot;
    if (cgroup_cpu_ns(stats->cgroups, partition_record(p)->vm_id, guest_process(guest).pid, &cpu_ns) < 0)
        cpu_ns = used.cpu_ns;
    look_network(stats, p, usage, now_ns);
    ask_disks(stats, p, usage);
    struct load load = {rate_update(&usage->cpu, cpu_ns, now_ns) / 1e9, (double)used.rss_bytes, usage->reads.per_s,
        usage->writes.per_s, usage->rx.per_s, usage->tx.per_s};
    load_average_add(&usage->demand, &load, now_ns / 1000000);
    load_write(&load, &now);
    load_write(&usage->demand.value, &demand);
    partition_set_load(p, &now, &demand);
    stats->used = load_add(&stats->used, &load);
    look_engine(stats, p, usage, now_ns);
    console_trim(partition_directory(p));
}

static void look(void *user)
{
    struct stats *stats = user;
    uint64_t now_ns = clock_now_ns();
    struct process_usage own;
    stats->used = stats->rest = (struct load){0};
    if (process_usage(getpid(), NULL, &own) == 0) {
        stats->rest.cpu_cores = rate_update(&stats->own_cpu, own.cpu_ns, now_ns) / 1e9;
        stats->rest.memory_bytes = (double)own.rss_bytes;
    }
    for (struct partition *p = NULL; (p = partitions_next(stats->partitions, p));)
        look_partition(stats, p, now_ns);
    struct load all = load_add(&stats->used, &stats->rest);
    load_write(&all, &stats->host);
    load_average_add(&stats->overhead, &stats->rest, now_ns / 1000000);
    load_ring_add(&stats->ring, &all, now_ns / 1000000);
}

struct stats *stats_open(uv_loop_t *loop, struct partitions *partitions, struct cgroups *cgroups, struct net *net)
{
    struct stats *stats = mem_zalloc(sizeof *stats);
    stats->partitions = partitions;
    stats->cgroups = cgroups;
    stats->net = net;
    drover__load__init(&stats->host);
    stats->timer = loop_timer_new(loop, look, stats);
    loop_timer_start(stats->timer, 0, STATS_INTERVAL_MS);
    return stats;
}

void stats_close(struct stats *stats)
{
    if (!stats)
        return;
    loop_timer_free(stats->timer);
    free(stats);
}

const Drover__Load *stats_host(const struct stats *stats)
{
    return &stats->host;
}

void stats_history(const struct stats *stats, struct stats_history *out)
{
    drover__load_history__init(&out->message);
    if (stats->ring.count == 0)
        return;
    drover__load__init(&out->overhead);
    load_write(&stats->overhead.value, &out->overhead);
    out->message.overhead = &out->overhead;
    out->message.n_peaks = load_ring_peaks(&stats->ring, out->peaks);
    for (size_t i = 0; i < out->message.n_peaks; i++)
        out->list[i] = &out->peaks[i];
    out->message.peaks = out->list;
}
