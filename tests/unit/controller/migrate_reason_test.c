/* What the user is told when a migration has not gone well: of two hosts' words those that say why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/unit/controller/sim.h"

#define VM          "vm-1"
#define ACTIONS_MAX 500

static const char died[] = "QEMU died of a full disk", silent[] = "the destination has acknowledged nothing for 10 s",
                  refused[] = "QEMU has not been seen to run it: locked";

/* Moves it from h1 to h2, whose hosts say that; what the job says. */
static void move(struct sim *sim, enum sim_fate fate, bool told, const char *source, const char *destination)
{
    sim_open(sim);
    sim->fate = fate;
    sim->outcomes = told;
    sim_running_vm(sim, VM, "web-1");
    if (source)
        err_set(&sim->says[0], ERR_TIMEOUT, "%s", source);
    if (destination)
        err_set(&sim->says[1], ERR_TIMEOUT, "%s", destination);
}

static const Drover__Job *over(struct sim *sim)
{
    uint64_t id = sim_job(sim, sim_vm_job(DROVER__JOB_KIND__JOB_VM_MIGRATE, VM, "h2", false));
    assert_int_equal(sim_run(sim, id, ACTIONS_MAX), DROVER__JOB_STATE__JOB_FAILED);
    return sim->job.log.job;
}

/* The source noticed the death as a silence, which is what follows from it. */
static void the_cause_goes_before_what_followed(void **unused)
{
    (void)unused;
    for (int told = 0; told < 2; told++) {
        struct sim sim;
        move(&sim, FATE_DESTINATION_DIES, told, silent, died);
        assert_non_null(strstr(over(&sim)->error->message, died));
        sim_close(&sim);
    }
}

/* Its guest stands still, and the user has to see to that first. */
static void a_guest_that_stands_still_goes_before_all(void **unused)
{
    (void)unused;
    for (int told = 0; told < 2; told++) {
        struct sim sim;
        move(&sim, FATE_DESTINATION_DIES, told, refused, died);
        sim.unresumed[0] = true;
        assert_non_null(strstr(over(&sim)->error->message, refused));
        sim_close(&sim);
    }
}

static const char *finish_detail(const Drover__Job *job)
{
    assert_string_equal(job->steps[job->n_steps - 1]->name, "finish");
    return job->steps[job->n_steps - 1]->detail;
}

static void a_guest_that_is_not_seen_to_run_is_not_lost(void **unused)
{
    (void)unused;
    for (int told = 0; told < 2; told++) {
        struct sim sim;
        move(&sim, FATE_DOUBT_TAKEN, told, NULL, refused);
        sim.unresumed[1] = true;
        const Drover__Job *job = over(&sim);
        assert_non_null(strstr(job->error->message, refused));
        assert_non_null(strstr(finish_detail(job), "is not seen to run on host h2"));
        sim_close(&sim);
        move(&sim, FATE_DOUBT_TAKEN, told, NULL, died);
        assert_non_null(strstr(finish_detail(over(&sim)), "was lost on host h2"));
        sim_close(&sim);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cause_goes_before_what_followed),
        cmocka_unit_test(a_guest_that_stands_still_goes_before_all),
        cmocka_unit_test(a_guest_that_is_not_seen_to_run_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
