/* From the log and the fleet to the optimizer and back: a hot host is relieved once, by one move, and then it is quiet.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "controller/pb.h"
#include "controller/placement/evacuation.h"
#include "controller/placement/placement.h"
#include "controller/placement/possible.h"
#include "sim.h"

#define WALL    1700000000000
#define DEFAULT DROVER__MIGRATION_MODE__MIGRATION_MODE_DEFAULT

struct world {
    struct sim sim; /* for its state and commands */
    struct fleet *fleet;
    struct placement *placement;
    struct speeds *speeds; /* of a log without migrations */
    uint64_t now_ms;
    double demand[4];
    const char *leaves; /* host that says it is being shut down; NULL: none */
};

static const char *const ids[] = {"vm-0", "vm-1", "vm-2", "vm-3"};

static void vm_insert(struct world *w, const char *id, uint64_t mib, Drover__MigrationMode mode)
{
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    spec.name = (char *)(uintptr_t)id;
    spec.vcpus = 1;
    spec.memory_bytes = mib << 20;
    spec.migration_mode = mode;
    sim_change(&w->sim, effect_vm_insert(id, &spec, ""));
}

static void world_open(struct world *w, bool automatic)
{
    *w = (struct world){.now_ms = 1000000, .demand = {0.28, 0.28, 0.28, 0.1}};
    sim_open(&w->sim);
    w->fleet = fleet_new(5000);
    struct placement_options options = {.automatic = automatic, .settle_ms = 5000};
    optimizer_defaults(&options.optimizer);
    options.optimizer.hold_ms = 10000;
    w->speeds = speeds_read(w->sim.state);
    w->placement = placement_new(w->sim.state, w->fleet, &options);
    for (int i = 0; i < 4; i++) {
        vm_insert(w, ids[i], 128, DEFAULT);
        sim_change(&w->sim, effect_vm_grant(ids[i], i < 3 ? "h1" : "h2", 1));
    }
}

static void world_close(struct world *w)
{
    placement_free(w->placement);
    speeds_free(w->speeds);
    fleet_free(w->fleet);
    sim_close(&w->sim);
}

/* All hosts report what the log says they own. */
static void beat(struct world *w)
{
    struct err err;
    for (size_t h = 0; h < SIM_HOSTS; h++) {
        Drover__PartitionReport reports[4], *list[4];
        Drover__Load loads[4], total = DROVER__LOAD__INIT;
        size_t n = 0;
        for (int i = 0; i < 4; i++) {
            struct state_vm vm = sim_vm(&w->sim, ids[i]);
            if (strcmp(vm.owner, w->sim.hosts[h].name) != 0)
                continue;
            drover__partition_report__init(&reports[n]);
            drover__load__init(&loads[n]);
            loads[n].cpu_cores = w->demand[i];
            loads[n].memory_bytes = 100u << 20;
            total.cpu_cores += w->demand[i];
            reports[n].vm_id = (char *)ids[i];
            reports[n].generation = vm.generation;
            reports[n].state = DROVER__PARTITION_STATE__PARTITION_RUNNING;
            reports[n].load = &loads[n];
            list[n] = &reports[n];
            n++;
        }
        struct fleet_host *host = fleet_find(w->fleet, w->sim.hosts[h].name);
        if (!host) {
            Drover__HostHelloRequest hello = DROVER__HOST_HELLO_REQUEST__INIT;
            w->sim.hosts[h].facts->capacity->cpu_cores = 1;
            hello.facts = w->sim.hosts[h].facts;
            assert_int_equal(fleet_hello(w->fleet, w->sim.hosts[h].name, (struct wire_peer *)(uintptr_t)(h + 1), &hello,
                                 w->now_ms, &err, &host),
                0);
        }
        Drover__HeartbeatRequest heartbeat = DROVER__HEARTBEAT_REQUEST__INIT;
        heartbeat.load = &total;
        heartbeat.partitions = list;
        heartbeat.n_partitions = n;
        heartbeat.shutting_down = w->leaves && strcmp(w->leaves, w->sim.hosts[h].name) == 0;
        assert_int_equal(fleet_heartbeat(w->fleet, host, &heartbeat, w->now_ms, &err), 0);
    }
}

/* Seconds until a move is asked for; 0: none within `limit`. */
static unsigned wait_for_move(struct world *w, unsigned limit, struct placement_move *move)
{
    for (unsigned i = 1; i <= limit; i++) {
        w->now_ms += 1000;
        beat(w);
        if (placement_tick(w->placement, w->now_ms, WALL + (int64_t)w->now_ms, move))
            return i;
    }
    return 0;
}

static void hot_host_is_relieved_once(void **unused)
{
    (void)unused;
    struct world w;
    struct placement_move move;
    world_open(&w, true);
    unsigned after = wait_for_move(&w, 60, &move);
    assert_true(after >= 10 && after <= 15); /* not before the hold time */
    assert_string_equal(move.from_host, "h1");
    assert_string_equal(move.to_host, "h3"); /* the emptiest */
    assert_true(strlen(move.reason) > 10);
    placement_moved(w.placement, move.vm_id, w.now_ms);
    /* while it moves, nothing else does */
    sim_change(&w.sim, effect_hand_over_allow(move.vm_id, "h1", 1, "m", "h3"));
    uint64_t job = sim_job(&w.sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, move.vm_id, "h3", false));
    struct placement_move second;
    assert_int_equal(wait_for_move(&w, 20, &second), 0);
    Drover__JobUpdate *update = pb_new(&drover__job_update__descriptor);
    update->job_id = job;
    update->revision = 1;
    update->state = DROVER__JOB_STATE__JOB_SUCCEEDED;
    PB_ADD(update, effects, effect_hand_over_taken(move.vm_id, "m"));
    assert_null(sim_propose(&w.sim, update));
    /* and afterwards the cluster is quiet: h1 is below its lower threshold */
    assert_int_equal(wait_for_move(&w, 120, &second), 0);
    world_close(&w);
}

static void nothing_by_itself_unless_automatic(void **unused)
{
    (void)unused;
    struct world w;
    struct placement_move move;
    world_open(&w, false);
    assert_int_equal(wait_for_move(&w, 60, &move), 0);
    sim_change(&w.sim, effect_setting_put("optimizer.automatic", "true"));
    assert_true(placement_automatic(w.placement));
    assert_int_equal(wait_for_move(&w, 60, &move), 1);
    sim_change(&w.sim, effect_setting_put("optimizer.automatic", "false"));
    assert_int_equal(wait_for_move(&w, 60, &move), 0);
    world_close(&w);
}

/* A move that fails is not tried again and again. */
static void what_was_tried_rests(void **unused)
{
    (void)unused;
    struct world w;
    struct placement_move first, next;
    world_open(&w, true);
    w.demand[0] = w.demand[1] = 0.3;
    assert_true(wait_for_move(&w, 60, &first) > 0);
    placement_moved(w.placement, first.vm_id, w.now_ms);
    assert_true(wait_for_move(&w, 60, &next) >= 5); /* settles */
    assert_string_not_equal(first.vm_id, next.vm_id);
    world_close(&w);
}

static void placing(void **unused)
{
    (void)unused;
    struct world w;
    struct err err;
    char host[STATE_NAME_MAX], reason[256];
    world_open(&w, false);
    vm_insert(&w, "vm-new", 128, DEFAULT);
    assert_int_equal(placement_choose(w.placement, "vm-new", "", NULL, w.now_ms, &err, host, reason), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    beat(&w);
    assert_int_equal(placement_choose(w.placement, "vm-new", "", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h3");
    assert_int_equal(placement_choose(w.placement, "vm-new", "h3", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h2");
    w.now_ms += 60000; /* all leases have run out */
    assert_int_equal(placement_choose(w.placement, "vm-new", "", NULL, w.now_ms, &err, host, reason), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(placement_choose(w.placement, "no-such", "", NULL, w.now_ms, &err, host, reason), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    world_close(&w);
}

/* Before the first of them is in the log, and each host has room for two, one of them for three. */
static void starts_of_one_moment_spread(void **unused)
{
    (void)unused;
    struct world w;
    struct err err;
    char host[STATE_NAME_MAX], reason[256], id[16];
    unsigned on[SIM_HOSTS] = {0};
    world_open(&w, false);
    beat(&w);
    for (int i = 0; i < 8; i++) {
        snprintf(id, sizeof id, "vm-new-%d", i);
        vm_insert(&w, id, 300, DEFAULT);
        int rc = placement_choose(w.placement, id, "", NULL, w.now_ms, &err, host, reason);
        assert_int_equal(rc, i < 7 ? 0 : -1);
        if (rc == 0)
            on[host[1] - '1']++;
    }
    assert_int_equal(err.code, ERR_CAPACITY);
    assert_int_equal(on[0], 2);
    assert_int_equal(on[1], 2);
    assert_int_equal(on[2], 3);
    assert_int_equal(
        placement_choose(w.placement, "vm-new-6", "", NULL, w.now_ms, &err, host, reason), 0); /* asked again */
    w.now_ms += 3000;                                                                          /* none was begun */
    beat(&w);
    assert_int_equal(placement_choose(w.placement, id, "", NULL, w.now_ms, &err, host, reason), 0);
    world_close(&w);
}

/* A leader's clock was a day ahead when it moved them. */
static void a_clock_that_was_wrong_makes_nothing_rest(void **unused)
{
    (void)unused;
    struct world w;
    struct placement_move move;
    world_open(&w, true);
    for (int i = 0; i < 3; i++) {
        struct state_vm vm = sim_vm(&w.sim, ids[i]);
        sim_change(&w.sim, effect_hand_over_allow(ids[i], "h1", vm.generation, ids[i], "h3"));
        w.sim.now_ms = 86400000; /* on the clock that commands are stamped by */
        sim_change(&w.sim, effect_hand_over_taken(ids[i], ids[i]));
    }
    assert_true(wait_for_move(&w, 60, &move) > 0);
    assert_string_equal(move.from_host, "h3");
    world_close(&w);
}

/* The emptiest host is being shut down: it gets none, neither new ones nor those of others, until it says otherwise. */
static void a_host_that_goes_down_is_no_candidate(void **unused)
{
    (void)unused;
    struct world w;
    struct err err;
    struct placement_move move;
    char host[STATE_NAME_MAX], reason[256];
    world_open(&w, true);
    vm_insert(&w, "vm-new", 128, DEFAULT);
    w.leaves = "h3";
    beat(&w);
    assert_int_equal(placement_choose(w.placement, "vm-new", "", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h2");
    assert_int_equal(placement_choose(w.placement, ids[0], "h1", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h2");
    Drover__OptimizerStatusReply *status = pb_new(&drover__optimizer_status_reply__descriptor);
    placement_status(w.placement, w.now_ms, WALL, status);
    assert_string_equal(status->hosts[2]->verdict, "being shut down");
    pb_free(status);
    assert_true(wait_for_move(&w, 60, &move) > 0);
    assert_string_equal(move.to_host, "h2");
    w.leaves = NULL;
    beat(&w);
    assert_int_equal(placement_choose(w.placement, "vm-new", "", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h3");
    world_close(&w);
}

/* The emptiest host runs its guests by other means than the others: it gets none of theirs. */
static void what_a_preflight_would_refuse_is_no_candidate(void **unused)
{
    (void)unused;
    struct world w;
    struct err err;
    struct placement_move move;
    char host[STATE_NAME_MAX], reason[256];
    world_open(&w, true);
    pb_string(&w.sim.hosts[2].facts->accelerator, "kvm");
    assert_true(wait_for_move(&w, 60, &move) > 0);
    assert_string_equal(move.to_host, "h2");
    assert_int_equal(placement_choose(w.placement, ids[0], "h1", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h2");
    struct world none;
    world_open(&none, true);
    pb_string(&none.sim.hosts[1].facts->accelerator, "kvm");
    pb_string(&none.sim.hosts[2].facts->accelerator, "kvm");
    assert_int_equal(wait_for_move(&none, 60, &move), 0);
    world_close(&none);
    world_close(&w);
}

/* A VM of h1's, whose tracker refuses its mode, but for `--mode precopy`. */
static void hybrid_insert(struct world *w)
{
    pb_string(&w->sim.hosts[0].facts->tracker, "qemu");
    vm_insert(w, "vm-hybrid", 128, DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID);
    sim_change(&w->sim, effect_vm_grant("vm-hybrid", "h1", 1));
}

/* A single move has options of its own, and a preflight that says more than that there is no host. */
static void what_no_host_could_run_is_left_to_the_preflight(void **unused)
{
    (void)unused;
    struct world w;
    struct err err;
    char host[STATE_NAME_MAX], reason[256];
    world_open(&w, false);
    hybrid_insert(&w);
    beat(&w);
    assert_int_equal(placement_choose(w.placement, "vm-hybrid", "h1", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h3");
    assert_non_null(strstr(reason, "h3 has most room"));
    /* No room is no room, though. */
    struct fleet_host *h2 = fleet_find(w.fleet, "h2"), *h3 = fleet_find(w.fleet, "h3");
    h2->facts->capacity->memory_bytes = h3->facts->capacity->memory_bytes = 1;
    assert_int_equal(placement_choose(w.placement, "vm-hybrid", "h1", NULL, w.now_ms, &err, host, reason), -1);
    assert_int_equal(err.code, ERR_CAPACITY);
    world_close(&w);
}

/* h3, which is emptier than h2, is h1's like, and h2 is not: what a move asks for decides who is a candidate. */
static void candidates_are_those_of_the_move_itself(void **unused)
{
    (void)unused;
    struct world w;
    struct err err;
    char host[STATE_NAME_MAX], reason[256];
    Drover__MigrationOptions options = DROVER__MIGRATION_OPTIONS__INIT;
    world_open(&w, false);
    pb_string(&w.sim.hosts[2].facts->accelerator, "kvm");
    hybrid_insert(&w);
    beat(&w);
    assert_int_equal(placement_choose(w.placement, "vm-hybrid", "h1", NULL, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h3"); /* nobody can: the emptiest one, whose preflight says why */
    options.mode = DROVER__MIGRATION_MODE__MIGRATION_MODE_PRECOPY;
    assert_int_equal(placement_choose(w.placement, "vm-hybrid", "h1", &options, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h2");
    options.with_storage = true;
    assert_int_equal(placement_choose(w.placement, "vm-hybrid", "h1", &options, w.now_ms, &err, host, reason), 0);
    assert_string_equal(host, "h3");
    world_close(&w);
}

static uint64_t never_moved(void *user, const struct state_vm *vm)
{
    (void)user, (void)vm;
    return 0;
}

/* The cluster as a plan sees it: h1 is hot, and nobody else could run what it has. */
static void stuck_view(struct world *w, struct view *view)
{
    world_open(w, false);
    pb_string(&w->sim.hosts[1].facts->accelerator, "kvm");
    pb_string(&w->sim.hosts[2].facts->accelerator, "kvm");
    beat(w);
    placement_view_make(view, w->sim.state, w->fleet, w->speeds, NULL, w->now_ms, never_moved, NULL);
}

/* The loop of the leader looks every second: a host that cannot be relieved must not cost the preflights of all. */
static void only_hosts_to_relieve_are_preflighted(void **unused)
{
    (void)unused;
    struct world w;
    struct view view;
    struct optimizer_settings settings;
    struct optimizer_plan *plan = mem_zalloc(sizeof *plan);
    struct optimizer_memory *memory = optimizer_memory_new();
    optimizer_defaults(&settings);
    stuck_view(&w, &view);
    possible_plan(&view, w.sim.state, w.fleet, memory, &settings, true, plan);
    assert_int_equal(plan->move_count, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(view.vms[placement_view_vm(&view, ids[i])].possible != NULL, i < 3); /* those of h1 */
    assert_int_equal(possible_fill(&view, w.sim.state, w.fleet, placement_view_host(&view, "h1")), 0);
    placement_view_free(&view);
    world_close(&w);
    /* What cannot be known does not keep it looking: the plan goes by what is. */
    stuck_view(&w, &view);
    for (int i = 0; i < 3; i++)
        snprintf(view.vm_ids[placement_view_vm(&view, ids[i])], STATE_ID_MAX, "gone");
    possible_plan(&view, w.sim.state, w.fleet, memory, &settings, true, plan);
    assert_int_equal(plan->move_count, 1);
    placement_view_free(&view);
    world_close(&w);
    optimizer_memory_free(memory);
    free(plan);
}

static void plan_and_status_are_told(void **unused)
{
    (void)unused;
    struct world w;
    struct placement_move moves[4];
    world_open(&w, false);
    beat(&w);
    Drover__OptimizerPlanReply *plan = pb_new(&drover__optimizer_plan_reply__descriptor);
    size_t count = placement_plan(w.placement, w.now_ms, WALL, plan, moves, 4);
    assert_int_equal(count, 1);
    assert_int_equal(plan->n_moves, 1);
    assert_string_equal(plan->moves[0]->vm, moves[0].vm);
    assert_true(plan->imbalance_after < plan->imbalance_before);
    pb_free(plan);
    Drover__OptimizerStatusReply *status = pb_new(&drover__optimizer_status_reply__descriptor);
    placement_status(w.placement, w.now_ms, WALL, status);
    assert_int_equal(status->n_hosts, 3);
    assert_float_equal(status->hosts[0]->cpu_utilization, 0.84, 1e-6);
    assert_true(status->verdict[0] != '\0');
    pb_free(status);
    world_close(&w);
}

static double takes_s(struct world *w)
{
    struct job_plan plan = {.moves = mem_zalloc(8 * sizeof *plan.moves)};
    struct optimizer_settings settings;
    optimizer_defaults(&settings);
    beat(w);
    evacuation_plan(w->sim.state, w->fleet, &settings, "h1", w->now_ms, 8, &plan);
    assert_int_equal(plan.count, 3);
    free(plan.moves);
    return plan.takes_s;
}

/* How long an evacuation takes goes by what the hosts say of their links; where none says it, by an assumption. */
static void evacuation_goes_by_the_links(void **unused)
{
    (void)unused;
    struct world w;
    world_open(&w, false);
    double assumed = takes_s(&w); /* three of 100 MiB at 100 MB/s, and what two at a time do not hide */
    assert_true(assumed > 3 * 1.04 && assumed < 3 * 1.04 + 3);
    for (size_t h = 0; h < SIM_HOSTS; h++)
        fleet_find(w.fleet, w.sim.hosts[h].name)->facts->link_bytes_per_s = h == 0 ? 10000000 : 1250000000;
    double slow = takes_s(&w); /* ten times as slow, by the end that is */
    assert_true(slow > 30 * 1.04 && slow < 30 * 1.04 + 3);
    world_close(&w);
}

/* More than one plan holds leave the host as well. */
static void evacuation_counts_what_no_plan_holds(void **unused)
{
    (void)unused;
    enum { COUNT = 3 * OPTIMIZER_MOVES_MAX };
    struct world w;
    struct err err;
    struct optimizer_settings settings;
    static char names[COUNT][16];
    static Drover__PartitionReport reports[COUNT], *list[COUNT];
    Drover__Load load = DROVER__LOAD__INIT;
    Drover__HeartbeatRequest heartbeat = DROVER__HEARTBEAT_REQUEST__INIT;
    struct job_plan plan = {.moves = mem_zalloc(8 * sizeof *plan.moves)};
    optimizer_defaults(&settings);
    world_open(&w, false);
    beat(&w);
    load.memory_bytes = 16u << 20;
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "many-%zu", i);
        vm_insert(&w, names[i], 16, DEFAULT);
        sim_change(&w.sim, effect_vm_grant(names[i], "h1", 1));
        drover__partition_report__init(&reports[i]);
        reports[i].vm_id = names[i];
        reports[i].generation = 1;
        reports[i].state = DROVER__PARTITION_STATE__PARTITION_RUNNING;
        reports[i].load = &load;
        list[i] = &reports[i];
    }
    heartbeat.load = &load;
    heartbeat.partitions = list;
    heartbeat.n_partitions = COUNT;
    assert_int_equal(fleet_heartbeat(w.fleet, fleet_find(w.fleet, "h1"), &heartbeat, w.now_ms, &err), 0);
    evacuation_plan(w.sim.state, w.fleet, &settings, "h1", w.now_ms, 8, &plan);
    assert_int_equal(plan.count, 8);
    assert_true(plan.takes_s > COUNT / 2); /* two at a time, each a second and what it sends */
    /* What was given up takes nobody's turn, whichever it is and however many. */
    static const char *given_up[COUNT + 3];
    for (size_t i = 0; i < COUNT; i++)
        if (i != COUNT / 2)
            given_up[plan.given_up_count++] = names[i];
    for (size_t i = 0; i < 3; i++)
        given_up[plan.given_up_count++] = ids[i];
    plan.given_up = given_up;
    plan.count = 0;
    evacuation_plan(w.sim.state, w.fleet, &settings, "h1", w.now_ms, 8, &plan);
    assert_int_equal(plan.count, 1);
    assert_string_equal(plan.moves[0].vm, names[COUNT / 2]);
    assert_string_equal(plan.stuck, "");
    free(plan.moves);
    world_close(&w);
}

/* With one move at a time, the next hot host has its turn when the first turns out to be stuck. */
static void next_hot_host_is_preflighted_in_its_turn(void **unused)
{
    (void)unused;
    struct world w;
    struct view view;
    struct optimizer_settings settings;
    struct optimizer_plan *plan = mem_zalloc(sizeof *plan);
    struct optimizer_memory *memory = optimizer_memory_new();
    optimizer_defaults(&settings);
    settings.max_moves = 1;
    world_open(&w, false);
    pb_string(&w.sim.hosts[0].facts->accelerator, "kvm");
    beat(&w);
    placement_view_make(&view, w.sim.state, w.fleet, w.speeds, NULL, w.now_ms, never_moved, NULL);
    size_t h1 = placement_view_host(&view, "h1"), h2 = placement_view_host(&view, "h2");
    for (int i = 0; i < 4; i++) { /* two on each, h1 the hotter */
        struct optimizer_vm *vm = &view.vms[placement_view_vm(&view, ids[i])];
        vm->host = i < 2 ? h1 : h2;
        vm->demand[RESOURCE_CPU] = i < 2 ? 0.48 : 0.45;
    }
    optimizer_plan(memory, &settings, &view.input, true, plan);
    assert_int_equal(plan->moves[0].from, h1);
    possible_plan(&view, w.sim.state, w.fleet, memory, &settings, true, plan);
    assert_int_equal(plan->move_count, 1);
    assert_int_equal(plan->moves[0].from, h2);
    assert_non_null(view.vms[plan->moves[0].vm].possible);
    placement_view_free(&view);
    world_close(&w);
    optimizer_memory_free(memory);
    free(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hot_host_is_relieved_once),
        cmocka_unit_test(nothing_by_itself_unless_automatic),
        cmocka_unit_test(what_was_tried_rests),
        cmocka_unit_test(placing),
        cmocka_unit_test(starts_of_one_moment_spread),
        cmocka_unit_test(a_clock_that_was_wrong_makes_nothing_rest),
        cmocka_unit_test(a_host_that_goes_down_is_no_candidate),
        cmocka_unit_test(what_a_preflight_would_refuse_is_no_candidate),
        cmocka_unit_test(what_no_host_could_run_is_left_to_the_preflight),
        cmocka_unit_test(candidates_are_those_of_the_move_itself),
        cmocka_unit_test(only_hosts_to_relieve_are_preflighted),
        cmocka_unit_test(evacuation_counts_what_no_plan_holds),
        cmocka_unit_test(next_hot_host_is_preflighted_in_its_turn),
        cmocka_unit_test(evacuation_goes_by_the_links),
        cmocka_unit_test(plan_and_status_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
