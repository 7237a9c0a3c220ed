/* What a migration looks at before it begins, what it is told to go by, and what its job says of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "sim.h"

#define ACTIONS_MAX 400u
#define VM          "vm-1"
#define OK          DROVER__JOB_STATE__JOB_SUCCEEDED
#define FAILED      DROVER__JOB_STATE__JOB_FAILED
#define MIGRATE     DROVER__JOB_KIND__JOB_VM_MIGRATE

/* A VM that runs on h1, and the job that moves it to h2. */
static uint64_t begin(struct sim *sim)
{
    sim_open(sim);
    sim_running_vm(sim, VM, "web-1");
    return sim_job(sim, sim_vm_job(MIGRATE, VM, "h2", false));
}

static void refused(struct sim *sim, uint64_t id, const char *code, size_t findings)
{
    assert_int_equal(sim_run(sim, id, ACTIONS_MAX), FAILED);
    assert_string_equal(sim->job.log.job->error->code, code);
    assert_int_equal(sim->actions, 3); /* both hosts look, then all is told at once */
    assert_int_equal(sim->job.log.data->n_findings, findings);
    sim_check_order(sim, VM, code);
    sim_close(sim);
}

static void preflight(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    pb_string(&sim.hosts[1].facts->accelerator, "kvm");
    refused(&sim, id, "unsupported", 1);
    id = begin(&sim);
    pb_string(&sim.hosts[0].facts->tracker, "none");
    refused(&sim, id, "unsupported", 1);
    id = begin(&sim);
    PB_ADD(sim.hosts[0].facts, machine_types, mem_strdup("pc-q35-10.0"));
    PB_ADD(sim.hosts[1].facts, machine_types, mem_strdup("pc-q35-7.2"));
    refused(&sim, id, "unsupported", 1);
    id = begin(&sim);
    sim.hosts[1].facts->capacity->memory_bytes = 128u << 20;
    refused(&sim, id, "no-capacity", 1);
    id = begin(&sim);
    sim.hosts[1].shutting_down = true;
    refused(&sim, id, "wrong-state", 1);
    id = begin(&sim);
    sim.hosts[1].facts->capacity->memory_bytes = 128u << 20;
    sim.hosts[1].facts->page_bytes = 16384;
    sim.hosts[0].facts->page_bytes = 4096;
    pb_string(&sim.hosts[0].facts->tracker, "none");
    sim_change(&sim, effect_host_maintenance("h2", true));
    refused(&sim, id, "wrong-state", 4);
}

static void set_policy(struct sim *sim, Drover__MigrationMode mode, Drover__MigrationStuck stuck, uint32_t downtime_ms)
{
    Drover__VmSpec policy = DROVER__VM_SPEC__INIT;
    policy.max_downtime_ms = downtime_ms;
    policy.migration_mode = mode;
    policy.on_no_convergence = stuck;
    Drover__JobCreate *create = sim_vm_job(DROVER__JOB_KIND__JOB_VM_SET, VM, "", false);
    PB_ADD(create->data, effects, effect_vm_policy_put(VM, &policy));
    assert_int_equal(sim_run(sim, sim_job(sim, create), ACTIONS_MAX), OK);
}

/* The options with which a VM of that policy is moved that the move itself says `asked` of (taken; NULL: nothing, as
 * evacuations and the optimizer do). Take. */
static Drover__MigrationOptions *options_of_move(bool policy, Drover__MigrationOptions *asked)
{
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, VM, "web-1");
    if (policy)
        set_policy(
            &sim, DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE, 12);
    Drover__JobCreate *create = sim_vm_job(MIGRATE, VM, "h2", false);
    create->data->options = asked;
    assert_int_equal(sim_run(&sim, sim_job(&sim, create), ACTIONS_MAX), OK);
    Drover__MigrationOptions *options = pb_copy(sim.job.log.data->options);
    sim_close(&sim);
    return options;
}

/* What a move does not say, the VM's policy says; what neither says, the cluster does. The options that the hosts get
 * are those in the job. */
static void moves_follow_the_policy(void **unused)
{
    (void)unused;
    cleanup_pb Drover__MigrationOptions *plain = options_of_move(false, NULL);
    assert_int_equal(plain->max_downtime_ms, 30);
    assert_int_equal(plain->mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_DEFAULT);
    cleanup_pb Drover__MigrationOptions *set = options_of_move(true, NULL);
    assert_int_equal(set->max_downtime_ms, 12);
    assert_int_equal(set->mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO);
    assert_int_equal(set->on_no_convergence, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE);
    Drover__MigrationOptions *asked = pb_new(&drover__migration_options__descriptor);
    asked->mode = DROVER__MIGRATION_MODE__MIGRATION_MODE_PRECOPY;
    cleanup_pb Drover__MigrationOptions *once = options_of_move(true, asked);
    assert_int_equal(once->max_downtime_ms, 12);
    assert_int_equal(once->mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_PRECOPY);
    assert_int_equal(once->on_no_convergence, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE);
}

/* Where no target is asked for, the candidates are those of this move. */
static void place_is_told_the_options(void **unused)
{
    (void)unused;
    for (int with = 0; with < 2; with++) {
        struct sim sim;
        sim_open(&sim);
        sim_running_vm(&sim, VM, "web-1");
        Drover__JobCreate *create = sim_vm_job(MIGRATE, VM, "", false);
        create->data->options = pb_new(&drover__migration_options__descriptor);
        create->data->options->with_storage = with;
        assert_int_equal(sim_step(&sim, sim_job(&sim, create)), ACT_CALL);
        assert_int_equal(sim.placed_with_storage, with);
        sim_close(&sim);
    }
}

static Drover__JobCreate *move_with_disks(const char *host)
{
    Drover__JobCreate *create = sim_vm_job(MIGRATE, VM, host, false);
    create->data->disks = pb_new(&drover__disk_moves__descriptor);
    Drover__DiskMove *disk = pb_new(&drover__disk_move__descriptor);
    pb_string(&disk->path, "/disks/web.raw");
    pb_string(&disk->target, "/fast/web.raw");
    PB_ADD(create->data->disks, disks, disk);
    return create;
}

/* Starts the VM, on `host` or where placement decides, which takes h1. Returns the host it runs on, "" if none. */
static const char *started_on(struct sim *sim, const char *host)
{
    static struct state_vm vm;
    sim_run(sim, sim_job(sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_START, VM, host, false)), ACTIONS_MAX);
    assert_true(state_vm(sim->state, VM, &vm));
    return vm.owner;
}

static void stop(struct sim *sim)
{
    assert_int_equal(
        sim_run(sim, sim_job(sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_STOP, VM, "", false)), ACTIONS_MAX), OK);
}

/* The VM is stopped, and where its disks went along, nobody but the user can tell which are the newer ones. */
static void copies_that_may_be_newer_are_named(void **unused)
{
    (void)unused;
    for (int with = 0; with < 2; with++) {
        struct sim sim;
        sim_open(&sim);
        sim.fate = FATE_DOUBT_FORGOTTEN;
        sim_running_vm(&sim, VM, "web-1");
        Drover__JobCreate *create = with ? move_with_disks("h2") : sim_vm_job(MIGRATE, VM, "h2", false);
        assert_int_equal(sim_run(&sim, sim_job(&sim, create), ACTIONS_MAX), FAILED);
        const char *why = sim.job.log.job->error->message;
        assert_non_null(strstr(why, "start it again"));
        assert_int_equal(strstr(why, "/disks/web.raw, or its copy /fast/web.raw on host h2") != NULL, with);
        sim_settle(&sim);
        assert_string_equal(started_on(&sim, ""), with ? "" : "h1");
        if (with) {
            assert_non_null(strstr(sim.job.log.job->error->message, "drover vm start web-1 --host HOST"));
            assert_string_equal(started_on(&sim, "h2"), "h2"); /* the user has looked */
            stop(&sim);
            assert_string_equal(started_on(&sim, ""), "h2");
        }
        sim_close(&sim);
    }
}

/* An older copy may lie where the emptiest host is. */
static void who_took_its_disks_along_is_started_where_they_are(void **unused)
{
    (void)unused;
    struct sim sim;
    sim_open(&sim);
    sim_running_vm(&sim, VM, "web-1");
    stop(&sim);
    assert_string_equal(started_on(&sim, "h3"), "h3");
    stop(&sim);
    assert_string_equal(started_on(&sim, ""), "h1"); /* its disks have never travelled */
    assert_int_equal(sim_run(&sim, sim_job(&sim, move_with_disks("h2")), ACTIONS_MAX), OK);
    stop(&sim);
    assert_string_equal(started_on(&sim, ""), "h2");
    assert_int_equal(sim_run(&sim, sim_job(&sim, sim_vm_job(MIGRATE, VM, "h3", false)), ACTIONS_MAX), OK);
    stop(&sim);
    assert_string_equal(started_on(&sim, ""), "h3"); /* both reach them, and there it ran last */
    stop(&sim);
    sim.hosts[0].starts = false;
    assert_string_equal(started_on(&sim, "h1"), "");
    assert_string_equal(started_on(&sim, ""), "h3"); /* it did not run on h1, so nothing newer is there */
    stop(&sim);
    sim.hosts[2].shutting_down = true;
    assert_string_equal(started_on(&sim, ""), "");
    assert_non_null(strstr(sim.job.log.job->error->message, "are on host h3, which is being shut down"));
    sim.hosts[2].up = false;
    assert_string_equal(started_on(&sim, ""), "");
    assert_non_null(strstr(sim.job.log.job->error->message, "are on host h3, which is not reachable"));
    assert_non_null(strstr(sim.job.log.job->error->message, "drover vm start web-1 --host HOST"));
    sim_close(&sim);
}

/* Hosts say hello to a new leader one after the other: the first that do may be those without room. */
static void a_host_that_is_not_heard_of_yet_may_have_the_room(void **unused)
{
    (void)unused;
    for (int moves = 0; moves < 2; moves++) {
        struct sim sim;
        sim_open(&sim);
        sim_running_vm(&sim, VM, "web-1");
        if (!moves)
            stop(&sim);
        sim.full = true;
        sim.hosts[2].up = false;
        sim.new_leader = true;
        uint64_t id = sim_job(&sim, sim_vm_job(moves ? MIGRATE : DROVER__JOB_KIND__JOB_VM_START, VM, "", false));
        assert_int_equal(sim_step(&sim, id), ACT_WAIT);
        assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), FAILED); /* not for ever */
        assert_string_equal(sim.job.log.job->error->code, "no-capacity");
        sim.new_leader = false; /* it would have been heard of by now */
        id = sim_job(&sim, sim_vm_job(moves ? MIGRATE : DROVER__JOB_KIND__JOB_VM_START, VM, "", false));
        uint64_t asked_ms = sim.now_ms;
        assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), FAILED);
        assert_in_range(sim.now_ms, asked_ms, asked_ms + 299); /* all are known: nothing to wait for */
        sim_close(&sim);
    }
}

static void migration_keeps_its_record(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    sim.outcomes = false;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_non_null(sim.job.log.job->migration);
    assert_int_equal(sim.job.log.job->migration->blackout_us, 4200);
    assert_int_equal(sim.job.log.job->migration->network_blackout_us, 0); /* nobody has told when it was heard */
    assert_string_equal(sim.job.log.job->migration->from_host, "h1");
    assert_string_equal(sim.job.log.job->migration->to_host, "h2");
    for (size_t i = 0; i < sim.job.log.job->n_steps; i++)
        assert_int_equal(sim.job.log.job->steps[i]->state, DROVER__STEP_STATE__STEP_DONE);
    sim_close(&sim);
}

static void migration_knows_when_the_guest_was_heard(void **unused)
{
    (void)unused;
    struct sim sim;
    uint64_t id = begin(&sim);
    sim.outcomes = true;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_int_equal(sim.job.log.job->migration->blackout_us, 4200);
    assert_int_equal(sim.job.log.job->migration->network_blackout_us, 4200 + SIM_HEARD_US);
    uint64_t heard_ms = sim.now_ms;
    sim_close(&sim);
    id = begin(&sim);
    sim.silent = true;
    assert_int_equal(sim_run(&sim, id, ACTIONS_MAX), OK);
    assert_int_equal(sim.job.log.job->migration->blackout_us, 4200);
    assert_int_equal(sim.job.log.job->migration->network_blackout_us, 0);
    assert_in_range(sim.now_ms, heard_ms, heard_ms + 150); /* it is waited for, but not for long */
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preflight),
        cmocka_unit_test(moves_follow_the_policy),
        cmocka_unit_test(place_is_told_the_options),
        cmocka_unit_test(copies_that_may_be_newer_are_named),
        cmocka_unit_test(who_took_its_disks_along_is_started_where_they_are),
        cmocka_unit_test(a_host_that_is_not_heard_of_yet_may_have_the_room),
        cmocka_unit_test(migration_keeps_its_record),
        cmocka_unit_test(migration_knows_when_the_guest_was_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
