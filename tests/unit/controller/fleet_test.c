/* Sessions, leases, loads and what reports may hold. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "controller/fleet/fleet.h"

#define LEASE_MS 4000u

static struct wire_peer *peer(int number)
{
    return (struct wire_peer *)(uintptr_t)(0x1000 + number); /* only ever compared */
}

static struct fleet_host *hello(struct fleet *fleet, const char *name, int number, uint64_t now_ms)
{
    struct err err;
    struct fleet_host *host = NULL;
    Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
    Drover__HostHelloRequest request = DROVER__HOST_HELLO_REQUEST__INIT;
    request.facts = &facts;
    assert_int_equal(fleet_hello(fleet, name, peer(number), &request, now_ms, &err, &host), 0);
    return host;
}

/* A heartbeat with one partition (id NULL: none). */
static int beat(struct fleet *fleet, struct fleet_host *host, const char *id, Drover__PartitionState state,
    double vm_cores, double host_cores, uint64_t now_ms, struct err *err)
{
    Drover__Load host_load = DROVER__LOAD__INIT, vm_load = DROVER__LOAD__INIT;
    Drover__PartitionReport report = DROVER__PARTITION_REPORT__INIT, *reports[] = {&report};
    Drover__HeartbeatRequest request = DROVER__HEARTBEAT_REQUEST__INIT;
    host_load.cpu_cores = host_cores;
    vm_load.cpu_cores = vm_cores;
    request.load = &host_load;
    report.load = &vm_load;
    report.vm_id = (char *)(id ? id : "");
    report.state = state;
    request.partitions = reports;
    request.n_partitions = id ? 1 : 0;
    return fleet_heartbeat(fleet, host, &request, now_ms, err);
}

/* What a host says of its shutdown counts for as long as the one who said it is there. */
static void a_shutdown_is_of_the_connection(void **unused)
{
    (void)unused;
    struct err err;
    Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
    Drover__HostHelloRequest begun = DROVER__HOST_HELLO_REQUEST__INIT;
    Drover__HeartbeatRequest on = DROVER__HEARTBEAT_REQUEST__INIT;
    struct fleet *fleet = fleet_new(LEASE_MS);
    struct fleet_host *host = hello(fleet, "h1", 1, 1000);
    assert_false(host->shutting_down);
    on.shutting_down = true;
    assert_int_equal(fleet_heartbeat(fleet, host, &on, 2000, &err), 0);
    assert_true(host->shutting_down);
    fleet_disconnected(fleet, peer(1));
    assert_false(host->shutting_down);
    begun.facts = &facts;
    begun.shutting_down = true; /* to a new leader, for one */
    assert_int_equal(fleet_hello(fleet, "h1", peer(2), &begun, 3000, &err, &host), 0);
    assert_true(host->shutting_down);
    assert_ptr_equal(hello(fleet, "h1", 3, 4000), host); /* booted, and up again */
    assert_false(host->shutting_down);
    fleet_free(fleet);
}

#define RUNNING DROVER__PARTITION_STATE__PARTITION_RUNNING

static void lease_lives_on_heartbeats(void **unused)
{
    (void)unused;
    struct err err;
    struct fleet *fleet = fleet_new(LEASE_MS);
    struct fleet_host *host = hello(fleet, "h1", 1, 1000);
    assert_true(fleet_up(fleet, host, 1000));
    assert_int_equal(fleet_lease_left_ms(fleet, host, 2000), LEASE_MS - 1000);
    assert_int_equal(beat(fleet, host, NULL, RUNNING, 0, 0, 4000, &err), 0);
    assert_true(fleet_up(fleet, host, 4000 + LEASE_MS)); /* the host itself has given up by now */
    assert_int_equal(fleet_lease_left_ms(fleet, host, 4000 + LEASE_MS), 0);
    assert_true(fleet_up(fleet, host, 4000 + LEASE_MS + LEASE_MS / 8 - 1));
    assert_false(fleet_up(fleet, host, 4000 + LEASE_MS + LEASE_MS / 8));
    fleet_free(fleet);
}

static void sessions_are_found_and_forgotten(void **unused)
{
    (void)unused;
    struct fleet *fleet = fleet_new(LEASE_MS);
    const char *names[] = {"m", "a", "z", "k"};
    for (int i = 0; i < 4; i++)
        hello(fleet, names[i], i, 1000);
    assert_int_equal(fleet_count(fleet), 4);
    for (size_t i = 1; i < 4; i++)
        assert_true(strcmp(fleet_at(fleet, i - 1)->name, fleet_at(fleet, i)->name) < 0);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(fleet_find(fleet, names[i])->peer, peer(i));
    assert_null(fleet_find(fleet, "b"));
    fleet_disconnected(fleet, peer(2));
    assert_null(fleet_find(fleet, "z")->peer);
    assert_true(fleet_up(fleet, fleet_find(fleet, "z"), 1001)); /* the lease runs on */
    fleet_forget(fleet, "m");
    assert_null(fleet_find(fleet, "m"));
    assert_int_equal(fleet_count(fleet), 3);
    hello(fleet, "z", 9, 2000);
    assert_ptr_equal(fleet_find(fleet, "z")->peer, peer(9));
    fleet_clear(fleet);
    assert_int_equal(fleet_count(fleet), 0);
    fleet_free(fleet);
}

static void demand_is_smoothed_and_follows_the_vm(void **unused)
{
    (void)unused;
    struct err err;
    struct fleet *fleet = fleet_new(LEASE_MS);
    struct fleet_host *a = hello(fleet, "a", 1, 1000), *b = hello(fleet, "b", 2, 1000);
    uint64_t now = 1000;
    assert_int_equal(beat(fleet, a, "vm", RUNNING, 1.0, 1.25, now, &err), 0);
    assert_float_equal(fleet_partition(a, "vm")->demand.value.cpu_cores, 1.0, 1e-9);
    assert_float_equal(a->overhead.value.cpu_cores, 0.25, 1e-9);
    for (int i = 0; i < 10; i++)
        assert_int_equal(beat(fleet, a, "vm", RUNNING, 0.0, 0.25, now += 1000, &err), 0);
    assert_float_equal(fleet_partition(a, "vm")->demand.value.cpu_cores, exp(-1.0), 1e-6);
    assert_float_equal(a->overhead.value.cpu_cores, 0.25, 1e-9);
    /* it arrives at b, whose first sample is not yet worth anything */
    assert_int_equal(beat(fleet, b, "vm", DROVER__PARTITION_STATE__PARTITION_INCOMING, 0, 0, now, &err), 0);
    assert_float_equal(fleet_partition(b, "vm")->demand.value.cpu_cores, exp(-1.0), 1e-6);
    fleet_free(fleet);
}

static void foreign_numbers_are_made_sane(void **unused)
{
    (void)unused;
    struct err err;
    struct fleet *fleet = fleet_new(LEASE_MS);
    struct fleet_host *host = hello(fleet, "h1", 1, 1000);
    assert_int_equal(beat(fleet, host, "vm", RUNNING, NAN, INFINITY, 1000, &err), 0);
    assert_float_equal(host->load.cpu_cores, 0, 0);
    assert_int_equal(beat(fleet, host, "vm", RUNNING, -3, 1, 2000, &err), 0);
    assert_float_equal(fleet_partition(host, "vm")->load.cpu_cores, 0, 0);
    assert_float_equal(host->load.cpu_cores, 1, 0);
    fleet_free(fleet);
}

static void reports_are_bounded(void **unused)
{
    (void)unused;
    struct err err;
    char id[STATE_ID_MAX + 1];
    struct fleet *fleet = fleet_new(LEASE_MS);
    struct fleet_host *host = hello(fleet, "h1", 1, 1000);
    assert_int_equal(beat(fleet, host, "vm", RUNNING, 1, 1, 1000, &err), 0);
    memset(id, 'x', STATE_ID_MAX);
    id[STATE_ID_MAX] = '\0';
    assert_int_equal(beat(fleet, host, id, RUNNING, 1, 1, 2000, &err), -1);
    assert_int_equal(beat(fleet, host, "", RUNNING, 1, 1, 2000, &err), -1);
    assert_non_null(fleet_partition(host, "vm")); /* a bad report leaves the last good one */
    assert_int_equal(host->seen_ms, 1000);

    Drover__PartitionReport report = DROVER__PARTITION_REPORT__INIT;
    Drover__PartitionReport **many = mem_alloc((FLEET_PARTITIONS_MAX + 1) * sizeof *many);
    for (size_t i = 0; i <= FLEET_PARTITIONS_MAX; i++)
        many[i] = &report;
    Drover__HeartbeatRequest request = DROVER__HEARTBEAT_REQUEST__INIT;
    request.partitions = many;
    request.n_partitions = FLEET_PARTITIONS_MAX + 1;
    assert_int_equal(fleet_heartbeat(fleet, host, &request, 3000, &err), -1);
    free(many);

    char long_fact[1000];
    memset(long_fact, 'y', sizeof long_fact - 1);
    long_fact[sizeof long_fact - 1] = '\0';
    Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
    Drover__HostHelloRequest bad = DROVER__HOST_HELLO_REQUEST__INIT;
    assert_int_equal(fleet_hello(fleet, "h2", peer(2), &bad, 1, &err, &host), -1);
    facts.kernel = long_fact;
    bad.facts = &facts;
    assert_int_equal(fleet_hello(fleet, "h2", peer(2), &bad, 1, &err, &host), -1);
    facts.kernel = (char *)"6.18";

    /* Each of its texts is short enough, but all together would not fit into an entry of the log. */
    enum { MODELS = 128, MISSING = 64 };
    char *missing[MISSING], word[64];
    Drover__CpuModel model = DROVER__CPU_MODEL__INIT, *models[MODELS];
    memset(word, 'z', 63);
    word[63] = '\0';
    for (size_t i = 0; i < MISSING; i++)
        missing[i] = word;
    for (size_t i = 0; i < MODELS; i++)
        models[i] = &model;
    model.name = word;
    model.missing = missing;
    model.n_missing = MISSING;
    facts.cpu_models = models;
    facts.n_cpu_models = MODELS;
    assert_int_equal(fleet_hello(fleet, "h2", peer(2), &bad, 1, &err, &host), -1);
    assert_non_null(strstr(err.message, "host h2: facts of "));
    facts.n_cpu_models = 2;
    assert_int_equal(fleet_hello(fleet, "h2", peer(2), &bad, 1, &err, &host), 0);
    fleet_free(fleet);
}

static void a_new_leader_begins_with_what_the_host_knows(void **unused)
{
    (void)unused;
    struct err err;
    struct fleet *fleet = fleet_new(LEASE_MS);
    struct fleet_host *host = NULL;
    Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
    Drover__Load demand = DROVER__LOAD__INIT, overhead = DROVER__LOAD__INIT, peak = DROVER__LOAD__INIT,
                 *peaks[] = {&peak};
    Drover__LoadHistory history = DROVER__LOAD_HISTORY__INIT;
    Drover__PartitionReport runs = DROVER__PARTITION_REPORT__INIT, comes = DROVER__PARTITION_REPORT__INIT;
    Drover__PartitionReport *reports[] = {&runs, &comes};
    Drover__HostHelloRequest request = DROVER__HOST_HELLO_REQUEST__INIT;
    demand.cpu_cores = 3;
    overhead.cpu_cores = 0.5;
    peak.cpu_cores = 7;
    history = (Drover__LoadHistory){.base = history.base, .overhead = &overhead, .n_peaks = 1, .peaks = peaks};
    runs.vm_id = (char *)"runs";
    runs.state = RUNNING;
    comes.vm_id = (char *)"comes";
    comes.state = DROVER__PARTITION_STATE__PARTITION_INCOMING;
    runs.load = comes.load = runs.demand = comes.demand = &demand;
    request.facts = &facts;
    request.history = &history;
    request.partitions = reports;
    request.n_partitions = 2;
    assert_int_equal(fleet_hello(fleet, "h1", peer(1), &request, 100000, &err, &host), 0);
    assert_float_equal(fleet_partition(host, "runs")->demand.value.cpu_cores, 3, 1e-9);
    assert_int_equal(fleet_partition(host, "comes")->demand.at_ms, 0); /* it does not work there yet */
    assert_float_equal(host->overhead.value.cpu_cores, 0.5, 1e-9);
    assert_float_equal(load_ring_peak(&host->ring).cpu_cores, 7, 0);
    /* a second hello of the session does not undo what this leader has seen since */
    assert_int_equal(beat(fleet, host, "runs", RUNNING, 0, 0, 110000, &err), 0);
    assert_int_equal(fleet_hello(fleet, "h1", peer(1), &request, 110000, &err, &host), 0);
    assert_float_equal(host->overhead.value.cpu_cores, 0.5F * expf(-1.0F), 1e-6);
    fleet_free(fleet);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lease_lives_on_heartbeats),
        cmocka_unit_test(a_shutdown_is_of_the_connection),
        cmocka_unit_test(sessions_are_found_and_forgotten),
        cmocka_unit_test(demand_is_smoothed_and_follows_the_vm),
        cmocka_unit_test(foreign_numbers_are_made_sane),
        cmocka_unit_test(reports_are_bounded),
        cmocka_unit_test(a_new_leader_begins_with_what_the_host_knows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
