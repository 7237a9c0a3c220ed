#include "controller/foretold.h"
#include "controller/fleet/fleet.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"
#include "controller/pb.h"

#define FACT_TEXT_MAX     256
#define FACT_WORD_MAX     63
#define MACHINE_TYPES_MAX 64
#define CPU_MODELS_MAX    128
#define CPU_MISSING_MAX   64
#define CPU_FEATURES_MAX  512
#define FACTS_BYTES_MAX   (128u << 10) /* they go into the log, half of whose longest entry this is */

struct fleet {
    struct fleet_host **hosts; /* by name */
    size_t count;
    uint32_t lease_ms;
};

struct fleet *fleet_new(uint32_t lease_ms)
{
    struct fleet *fleet = mem_zalloc(sizeof *fleet);
    fleet->lease_ms = lease_ms;
    return fleet;
}

static void partitions_free(struct fleet_partition *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pb_free(list[i].progress);
    free(list);
}

static void host_free(struct fleet_host *host)
{
    pb_free(host->facts);
    partitions_free(host->partitions, host->partition_count);
    free(host->missing);
    free(host);
}

void fleet_clear(struct fleet *fleet)
{
    for (size_t i = 0; i < fleet->count; i++)
        host_free(fleet->hosts[i]);
    free(fleet->hosts);
    fleet->hosts = NULL;
    fleet->count = 0;
}

void fleet_free(struct fleet *fleet)
{
    if (!fleet)
        return;
    fleet_clear(fleet);
    free(fleet);
}

uint32_t fleet_lease_ms(const struct fleet *fleet)
{
    return fleet->lease_ms;
}

/* Index of the host, or where it would go. */
static size_t host_index(const struct fleet *fleet, const char *name, bool *found)
{
    size_t low = 0, high = fleet->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(fleet->hosts[middle]->name, name);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = false;
    return low;
}

struct fleet_host *fleet_find(const struct fleet *fleet, const char *name)
{
    bool found;
    size_t at = host_index(fleet, name, &found);
    return found ? fleet->hosts[at] : NULL;
}

size_t fleet_count(const struct fleet *fleet)
{
    return fleet->count;
}

struct fleet_host *fleet_at(const struct fleet *fleet, size_t i)
{
    ENSURE(i < fleet->count);
    return fleet->hosts[i];
}

static struct fleet_host *host_new(struct fleet *fleet, const char *name)
{
    bool found;
    size_t at = host_index(fleet, name, &found);
    ENSURE(!found);
    struct fleet_host *host = mem_zalloc(sizeof *host);
    snprintf(host->name, sizeof host->name, "%s", name);
    fleet->hosts = mem_realloc(fleet->hosts, (fleet->count + 1) * sizeof(struct fleet_host *));
    memmove(fleet->hosts + at + 1, fleet->hosts + at, (fleet->count - at) * sizeof(struct fleet_host *));
    fleet->hosts[at] = host;
    fleet->count++;
    return host;
}

void fleet_forget(struct fleet *fleet, const char *name)
{
    bool found;
    size_t at = host_index(fleet, name, &found);
    if (!found)
        return;
    host_free(fleet->hosts[at]);
    fleet->count--;
    memmove(fleet->hosts + at, fleet->hosts + at + 1, (fleet->count - at) * sizeof(struct fleet_host *));
}

void fleet_disconnected(struct fleet *fleet, const struct wire_peer *peer)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->hosts[i]->peer == peer) {
            fleet->hosts[i]->peer = NULL;
            fleet->hosts[i]->shutting_down = false; /* whoever is there next says it anew */
        }
}

/* The host's own deadline is lease_ms after it sent the heartbeat; an eighth covers clocks that run apart. */
uint32_t fleet_lease_most_ms(const struct fleet *fleet)
{
    return fleet->lease_ms + fleet->lease_ms / 8;
}

bool fleet_up(const struct fleet *fleet, const struct fleet_host *host, uint64_t now_ms)
{
    return now_ms < host->seen_ms + fleet_lease_most_ms(fleet);
}

uint64_t fleet_lease_left_ms(const struct fleet *fleet, const struct fleet_host *host, uint64_t now_ms)
{
    uint64_t end = host->seen_ms + fleet->lease_ms;
    return now_ms < end ? end - now_ms : 0;
}

static int partition_compare(const void *a, const void *b)
{
    return strcmp(((const struct fleet_partition *)a)->vm_id, ((const struct fleet_partition *)b)->vm_id);
}

struct fleet_partition *fleet_partition(const struct fleet_host *host, const char *vm_id)
{
    struct fleet_partition key;
    if (host->partition_count == 0 || strlen(vm_id) >= sizeof key.vm_id)
        return NULL;
    snprintf(key.vm_id, sizeof key.vm_id, "%s", vm_id);
    return bsearch(&key, host->partitions, host->partition_count, sizeof key, partition_compare);
}

Drover__PartitionState fleet_vm_state(
    const struct fleet_host *host, const struct fleet_partition *p, const struct state_vm *vm)
{
    bool taken = strcmp(vm->owner, host->name) == 0 && vm->generation == p->generation;
    return taken && p->state == DROVER__PARTITION_STATE__PARTITION_INCOMING ? DROVER__PARTITION_STATE__PARTITION_RUNNING
                                                                            : p->state;
}

/* What is known of a VM that has just come to this host: its demand, from where it was. Looks through all hosts, but
 * only once per arrival. */
static void demand_inherit(const struct fleet *fleet, const struct fleet_host *host, struct fleet_partition *p)
{
    for (size_t i = 0; i < fleet->count; i++) {
        const struct fleet_partition *other =
            fleet->hosts[i] == host ? NULL : fleet_partition(fleet->hosts[i], p->vm_id);
        if (other && other->demand.at_ms > p->demand.at_ms)
            p->demand = other->demand;
    }
}

static void progress_bound(Drover__MigrationProgress *progress)
{
    if (progress && strlen(progress->phase) > 32)
        progress->phase[32] = '\0';
    if (progress)
        foretold_bound(progress->forecast);
}

/* A partition's load counts towards its VM's demand only where the VM runs. */
static bool partition_runs(const struct fleet_partition *p)
{
    return p->state == DROVER__PARTITION_STATE__PARTITION_RUNNING ||
           p->state == DROVER__PARTITION_STATE__PARTITION_OUTGOING;
}

static void partition_read(const struct fleet *fleet, const struct fleet_host *host,
    const Drover__PartitionReport *report, uint64_t now_ms, struct fleet_partition *p)
{
    *p = (struct fleet_partition){.generation = report->generation,
        .state = report->state,
        .uptime_ms = report->uptime_ms,
        .resuming = report->resuming,
        .load = load_read(report->load),
        .first_ms = now_ms};
    snprintf(p->vm_id, sizeof p->vm_id, "%s", report->vm_id);
    snprintf(p->migration_id, sizeof p->migration_id, "%s", report->migration_id);
    snprintf(p->detail, sizeof p->detail, "%s", report->detail);
    snprintf(p->halted, sizeof p->halted, "%s", report->halted);
    p->progress = pb_copy(report->progress);
    progress_bound(p->progress);
    const struct fleet_partition *old = fleet_partition(host, p->vm_id);
    if (old) {
        p->demand = old->demand;
        p->first_ms = old->first_ms;
        p->acted_ms = old->acted_ms;
        p->warned = old->warned;
    } else {
        demand_inherit(fleet, host, p);
    }
    if (partition_runs(p)) {
        load_average_continue(&p->demand, report->demand, now_ms);
        load_average_add(&p->demand, &p->load, now_ms);
    }
}

static int report_check(const struct fleet_host *host, size_t count, Drover__PartitionReport **reports, struct err *err)
{
    if (count > FLEET_PARTITIONS_MAX)
        return err_set(
            err, ERR_INVALID, "host %s reports %zu partitions, more than %d", host->name, count, FLEET_PARTITIONS_MAX);
    for (size_t i = 0; i < count; i++)
        if (!reports[i]->vm_id[0] || strlen(reports[i]->vm_id) >= STATE_ID_MAX ||
            strlen(reports[i]->migration_id) >= STATE_ID_MAX)
            return err_set(err, ERR_INVALID, "host %s reports a partition with a bad id", host->name);
    return 0;
}

static int report_take(struct fleet *fleet, struct fleet_host *host, const Drover__Load *load, size_t count,
    Drover__PartitionReport **reports, uint64_t now_ms, struct err *err)
{
    if (report_check(host, count, reports, err) < 0)
        return -1;
    struct fleet_partition *list = mem_zalloc(count * sizeof *list);
    struct load used = {0};
    for (size_t i = 0; i < count; i++) {
        partition_read(fleet, host, reports[i], now_ms, &list[i]);
        used = load_add(&used, &list[i].load);
    }
    if (count)
        qsort(list, count, sizeof *list, partition_compare);
    partitions_free(host->partitions, host->partition_count);
    host->partitions = list;
    host->partition_count = count;
    host->seen_ms = now_ms;
    if (load) {
        host->load = load_read(load);
        struct load rest = load_less(&host->load, &used);
        load_average_add(&host->overhead, &rest, now_ms);
        load_ring_add(&host->ring, &host->load, now_ms);
    }
    return 0;
}

/* These words come back to hosts as parts of QEMU's command line. */
static int word_check(const char *text, const char *what, struct err *err)
{
    if (strlen(text) > FACT_WORD_MAX)
        return err_set(err, ERR_INVALID, "a name among the %s of more than %d bytes", what, FACT_WORD_MAX);
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
            return err_set(err, ERR_INVALID, "a name among the %s that is no word", what);
    return 0;
}

static int words_check(char *const *words, size_t count, size_t most, const char *what, struct err *err)
{
    if (count > most)
        return err_set(err, ERR_INVALID, "more than %zu %s", most, what);
    for (size_t i = 0; i < count; i++)
        if (word_check(words[i], what, err) < 0)
            return -1;
    return 0;
}

static int cpus_check(const Drover__HostFacts *f, struct err *err)
{
    if (f->n_cpu_models > CPU_MODELS_MAX)
        return err_set(err, ERR_INVALID, "more than %d models of processors", CPU_MODELS_MAX);
    for (size_t i = 0; i < f->n_cpu_models; i++) {
        const Drover__CpuModel *model = f->cpu_models[i];
        if (word_check(model->name, "processors", err) < 0 ||
            words_check(model->missing, model->n_missing, CPU_MISSING_MAX, "features a processor lacks", err) < 0)
            return -1;
    }
    return words_check(f->cpu_features, f->n_cpu_features, CPU_FEATURES_MAX, "features of processors", err);
}

int fleet_facts_check(const Drover__HostFacts *f, struct err *err)
{
    if (!f)
        return err_set(err, ERR_INVALID, "a hello without facts");
    const char *texts[] = {f->migration_address, f->kernel, f->hypervisor, f->accelerator, f->accelerator_reason,
        f->tracker, f->boot_id, f->program, f->clock_source, f->machine};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strlen(texts[i]) > FACT_TEXT_MAX)
            return err_set(err, ERR_INVALID, "a fact of more than %d bytes", FACT_TEXT_MAX);
    if (words_check(f->machine_types, f->n_machine_types, MACHINE_TYPES_MAX, "machine types", err) < 0)
        return -1;
    size_t size = drover__host_facts__get_packed_size(f);
    if (size > FACTS_BYTES_MAX)
        return err_set(err, ERR_INVALID, "facts of %zu bytes: up to %u are taken", size, FACTS_BYTES_MAX);
    return cpus_check(f, err);
}

int fleet_hello(struct fleet *fleet, const char *name, struct wire_peer *peer, const Drover__HostHelloRequest *hello,
    uint64_t now_ms, struct err *err, struct fleet_host **out)
{
    if (fleet_facts_check(hello->facts, err) < 0)
        return err_wrap(err, "host %s", name);
    struct fleet_host *host = fleet_find(fleet, name);
    if (!host)
        host = host_new(fleet, name);
    if (report_take(fleet, host, NULL, hello->n_partitions, hello->partitions, now_ms, err) < 0)
        return -1;
    if (hello->history) {
        load_average_continue(&host->overhead, hello->history->overhead, now_ms);
        load_ring_continue(&host->ring, hello->history->peaks, hello->history->n_peaks, now_ms);
    }
    pb_free(host->facts);
    host->facts = pb_copy(hello->facts);
    host->peer = peer;
    host->hello_ms = now_ms;
    host->shutting_down = hello->shutting_down;
    host->missing_count = 0;
    *out = host;
    return 0;
}

int fleet_heartbeat(struct fleet *fleet, struct fleet_host *host, const Drover__HeartbeatRequest *heartbeat,
    uint64_t now_ms, struct err *err)
{
    Drover__Load none = DROVER__LOAD__INIT;
    if (report_take(fleet, host, heartbeat->load ? heartbeat->load : &none, heartbeat->n_partitions,
            heartbeat->partitions, now_ms, err) < 0)
        return -1;
    host->shutting_down = heartbeat->shutting_down;
    return 0;
}
