/* Which disks a migration takes along, how large, and what they are called at the other end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "controller/jobs/migrate.h"
#include "controller/jobs/step.h"
#include "controller/pb.h"
#include "tests/unit/controller/sim.h"

struct fixture {
    struct job job;
    Drover__VmSpec *spec;
    struct err err;
};

static void add_disk(struct fixture *f, const char *path, bool read_only, uint64_t bytes)
{
    Drover__Disk *disk = pb_new(&drover__disk__descriptor);
    pb_string(&disk->path, path);
    disk->read_only = read_only;
    PB_ADD(f->spec, disks, disk);
    Drover__CheckedFile *file = pb_new(&drover__checked_file__descriptor);
    pb_string(&file->path, path);
    file->bytes = bytes;
    PB_ADD(f->job.migrating.check_source, disks, file);
}

static int setup(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    fixture.spec = pb_new(&drover__vm_spec__descriptor);
    pb_string(&fixture.spec->name, "web");
    fixture.job.migrating.check_source = pb_new(&drover__migrate_check_reply__descriptor);
    fixture.job.log.data = pb_new(&drover__job_data__descriptor);
    fixture.job.log.data->options = pb_new(&drover__migration_options__descriptor);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    pb_free(f->spec);
    pb_free(f->job.migrating.check_source);
    pb_free(f->job.migrating.disks);
    pb_free(f->job.log.data);
    return 0;
}

static void test_disks_that_are_written_to_move(void **state)
{
    struct fixture *f = *state;
    add_disk(f, "/disks/system.raw", false, 1000);
    add_disk(f, "/iso/install.iso", true, 0);
    add_disk(f, "/disks/data.raw", false, 2000);
    assert_int_equal(migrate_disks_plan(&f->job, f->spec, &f->err), 0);
    assert_int_equal(f->job.migrating.disks->n_disks, 2);
    assert_int_equal(f->job.migrating.disks->disks[1]->number, 2);
    assert_int_equal(f->job.migrating.disks->disks[1]->bytes, 2000);
    assert_string_equal(f->job.migrating.disks->disks[1]->target, "/disks/data.raw");
    assert_int_equal(f->job.migrating.check_source->n_disks, 1); /* the target is asked about the rest alone */
    assert_string_equal(f->job.migrating.check_source->disks[0]->path, "/iso/install.iso");
    migrate_disks_leave_out(f->spec);
    assert_int_equal(f->spec->n_disks, 1);
    assert_true(f->spec->disks[0]->read_only);
}

static void test_they_may_go_to_another_directory(void **state)
{
    struct fixture *f = *state;
    add_disk(f, "/disks/system.raw", false, 1000);
    pb_string(&f->job.log.data->options->storage_directory, "/fast/");
    assert_int_equal(migrate_disks_plan(&f->job, f->spec, &f->err), 0);
    assert_string_equal(f->job.migrating.disks->disks[0]->target, "/fast/system.raw");
}

static void test_no_two_of_them_get_one_name(void **state)
{
    struct fixture *f = *state;
    add_disk(f, "/a/disk.raw", false, 1000);
    add_disk(f, "/b/disk.raw", false, 1000);
    pb_string(&f->job.log.data->options->storage_directory, "/fast");
    assert_int_equal(migrate_disks_plan(&f->job, f->spec, &f->err), -1);
    assert_int_equal(f->err.code, ERR_INVALID);
    assert_non_null(strstr(f->err.message, "/fast/disk.raw"));
}

static void test_what_cannot_be_told_is_refused(void **state)
{
    struct fixture *f = *state;
    add_disk(f, "/disks/system.raw", false, 0);
    assert_int_equal(migrate_disks_plan(&f->job, f->spec, &f->err), -1);
    assert_int_equal(f->err.code, ERR_UNSUPPORTED);
    pb_free(f->job.migrating.check_source);
    f->job.migrating.check_source = NULL; /* an older host */
    assert_int_equal(migrate_disks_plan(&f->job, f->spec, &f->err), -1);
    assert_int_equal(f->err.code, ERR_UNSUPPORTED);
}

static void test_without_any_there_is_nothing_to_take(void **state)
{
    struct fixture *f = *state;
    add_disk(f, "/iso/install.iso", true, 1000);
    assert_int_equal(migrate_disks_plan(&f->job, f->spec, &f->err), -1);
    assert_int_equal(f->err.code, ERR_INVALID);
}

static void add_move(struct fixture *f, const char *path, const char *target)
{
    Drover__DiskMove *move = pb_new(&drover__disk_move__descriptor);
    pb_string(&move->path, path);
    pb_string(&move->target, target);
    PB_ADD(f->job.log.data->disks, disks, move);
}

/* An old file that another VM's definition names, too, is that VM's. */
static void test_only_what_is_nobody_elses_is_removed(void **state)
{
    struct fixture *f = *state;
    struct sim sim;
    Drover__Job job = DROVER__JOB__INIT;
    char kept[MIGRATE_NOTE_MAX];
    sim_open(&sim);
    sim_running_vm(&sim, "vm-1", "web"); /* names SIM_DISK */
    struct job_env env = sim_env(&sim);
    struct job_action action = {0};
    struct job_ctx ctx = {.job = &f->job, .env = &env, .out = &action};
    f->job.log.job = &job;
    f->job.log.data->disks = pb_new(&drover__disk_moves__descriptor);
    pb_string(&f->job.log.data->vm_id, "vm-1");
    pb_string(&f->job.log.data->from_host, "h1");
    add_move(f, SIM_DISK, SIM_DISK); /* at the other host */
    assert_true(migrate_disks_leave(&ctx));
    assert_int_equal(((Drover__StorageLeaveRequest *)action.request)->n_paths, 1);
    assert_string_equal(migrate_disks_kept(&ctx, kept), "");
    job_action_clear(&action);

    sim_running_vm(&sim, "vm-2", "db");
    assert_false(migrate_disks_leave(&ctx));
    assert_non_null(strstr(migrate_disks_kept(&ctx, kept), SIM_DISK));
    assert_non_null(strstr(kept, "VM db"));
    add_move(f, "/disks/own.raw", "/fast/own.raw");
    assert_true(migrate_disks_leave(&ctx));
    const Drover__StorageLeaveRequest *request = action.request;
    assert_int_equal(request->n_paths, 1);
    assert_string_equal(request->paths[0], "/disks/own.raw");
    job_action_clear(&action);

    f->job.log.data->options->keep_source = true;
    assert_false(migrate_disks_leave(&ctx));
    assert_string_equal(migrate_disks_kept(&ctx, kept), "");
    f->job.log.job = NULL;
    sim_close(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_disks_that_are_written_to_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_they_may_go_to_another_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_two_of_them_get_one_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_told_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_any_there_is_nothing_to_take, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_what_is_nobody_elses_is_removed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
