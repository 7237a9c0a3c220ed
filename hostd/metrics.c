#include "hostd/metrics.h"

#include "base/clock.h"

static void collect_host(const struct hostd_metrics *h, struct metrics *m)
{
    const Drover__Load *load = stats_host(h->stats);
    metrics_gauge(
        m, "drover_hostd_cpu_cores", "CPU cores busy with this host's partitions and daemons.", load->cpu_cores);
    metrics_gauge(m, "drover_hostd_cpu_capacity_cores", "CPU cores this host offers to guests.", h->options->cpu_cores);
    metrics_gauge(m, "drover_hostd_memory_bytes", "Resident memory of this host's partitions and daemons.",
        (double)load->memory_bytes);
    metrics_gauge(m, "drover_hostd_memory_capacity_bytes", "Memory this host offers to guests.",
        (double)h->options->memory_bytes);
    metrics_gauge(
        m, "drover_hostd_session_up", "1 while a leading controller holds this host's session.", agent_up(h->agent));
    metrics_gauge(m, "drover_hostd_lease_remaining_seconds", "Time until this host's lease ends.",
        (double)agent_lease_left_ms(h->agent, clock_now_ms()) / 1000);
    metrics_gauge(m, "drover_hostd_outcomes_pending", "Ended migrations that no controller has taken note of yet.",
        (double)outcomes_untold_count(h->outcomes));
}

static void collect_states(const struct hostd_metrics *h, struct metrics *m)
{
    unsigned count[STATE_COUNT] = {0};
    for (struct partition *p = NULL; (p = partitions_next(h->partitions, p));)
        count[partition_record(p)->state]++;
    metrics_family(m, "drover_hostd_partitions", METRIC_GAUGE, "Partitions on this host by state.");
    for (int state = STATE_STARTING; state < STATE_COUNT; state++)
        metrics_sample(m, count[state], "state", state_name((enum partition_state)state), NULL);
}

/* One family: what `value` reads off every partition that has a guest. */
static void collect_each(const struct hostd_metrics *h, struct metrics *m, const char *name, const char *help,
    double (*value)(const struct partition *p))
{
    metrics_family(m, name, METRIC_GAUGE, help);
    for (struct partition *p = NULL; (p = partitions_next(h->partitions, p));)
        if (partition_guest(p))
            metrics_sample(m, value(p), "vm", partition_record(p)->spec->name, NULL);
}

static double cpu_of(const struct partition *p)
{
    return partition_load(p)->cpu_cores;
}

static double memory_of(const struct partition *p)
{
    return (double)partition_load(p)->memory_bytes;
}

static double reads_of(const struct partition *p)
{
    return partition_load(p)->disk_read_iops;
}

static double writes_of(const struct partition *p)
{
    return partition_load(p)->disk_write_iops;
}

static double received_of(const struct partition *p)
{
    return partition_load(p)->net_rx_bytes_per_s;
}

static double sent_of(const struct partition *p)
{
    return partition_load(p)->net_tx_bytes_per_s;
}

static double uptime_of(const struct partition *p)
{
    return (double)partition_uptime_ms(p, clock_now_ms()) / 1000;
}

void hostd_metrics_collect(void *user, struct metrics *m)
{
    const struct hostd_metrics *h = user;
    struct wire_counters wire;
    wire_counters(h->wire, &wire);
    metrics_process(m, "drover-hostd");
    collect_host(h, m);
    collect_states(h, m);
    collect_each(h, m, "drover_partition_cpu_cores", "CPU cores the partition keeps busy.", cpu_of);
    collect_each(h, m, "drover_partition_memory_bytes", "Resident memory of the partition.", memory_of);
    collect_each(h, m, "drover_partition_disk_reads_per_second", "Disk reads the guest completes.", reads_of);
    collect_each(h, m, "drover_partition_disk_writes_per_second", "Disk writes the guest completes.", writes_of);
    collect_each(h, m, "drover_partition_network_receive_bytes_per_second", "Bytes the guest receives.", received_of);
    collect_each(h, m, "drover_partition_network_transmit_bytes_per_second", "Bytes the guest sends.", sent_of);
    collect_each(
        h, m, "drover_partition_uptime_seconds", "Time since the guest was started, on whatever host.", uptime_of);
    metrics_counter(m, "drover_wire_messages_received_total", "Messages received.", (double)wire.messages_in);
    metrics_counter(m, "drover_wire_messages_sent_total", "Messages sent.", (double)wire.messages_out);
    metrics_counter(m, "drover_wire_messages_rejected_total", "Messages dropped as malformed, oversized or unexpected.",
        (double)wire.rejected);
}
