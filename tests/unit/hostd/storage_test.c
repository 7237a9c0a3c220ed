/* What hostd says of a disk on the move: only what is certain. Files are looked at off the loop. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ensure.h"
#include "base/file.h"
#include "base/loop.h"
#include "hostd/hypervisor/qemu/private.h"
#include "hostd/partition/private.h"
#include "tests/unit/hostd/specs.h"

#define VM   SPECS_VM_ID
#define MOVE "0a1b2c3d-0000-4000-8000-000000000000"

/* --- storage that fails, and who looks at it --- */

static atomic_int look_fails; /* errno; 0: it does not */
static atomic_uint looks_on_loop;
static pthread_t loop_thread;
static bool counting;

static void looked(void)
{
    if (counting && pthread_equal(pthread_self(), loop_thread))
        atomic_fetch_add(&looks_on_loop, 1);
}

int __real_fstatat(int directory, const char *name, struct stat *st, int flags);
int __wrap_fstatat(int directory, const char *name, struct stat *st, int flags);
int __wrap_fstatat(int directory, const char *name, struct stat *st, int flags)
{
    looked();
    if (!look_fails)
        return __real_fstatat(directory, name, st, flags);
    errno = look_fails;
    return -1;
}

char *__real_realpath(const char *path, char *out);
char *__wrap_realpath(const char *path, char *out);
char *__wrap_realpath(const char *path, char *out)
{
    looked();
    return __real_realpath(path, out);
}

/* --- answers --- */

static struct {
    unsigned count;
    struct err err;
    Drover__MigrationOutcome outcome;
    char why[ERR_MESSAGE_MAX];
    char target[PATH_MAX];
    uint64_t inode;
} got;

void __wrap_wire_reply(struct wire_request *request, const ProtobufCMessage *reply);
void __wrap_wire_reply_error(struct wire_request *request, const struct err *err);

void __wrap_wire_reply(struct wire_request *request, const ProtobufCMessage *reply)
{
    (void)request;
    got.count++;
    got.err.code = ERR_NONE;
    if (reply->descriptor == &drover__migrate_query_reply__descriptor) {
        const Drover__MigrateQueryReply *said = (const Drover__MigrateQueryReply *)reply;
        got.outcome = said->outcome;
        snprintf(got.why, sizeof got.why, "%s", said->error ? said->error->message : "");
    } else if (reply->descriptor == &drover__storage_check_reply__descriptor) {
        const Drover__StorageCheckReply *checked = (const Drover__StorageCheckReply *)reply;
        snprintf(got.target, sizeof got.target, "%s", checked->target);
        got.inode = checked->inode;
    }
}

void __wrap_wire_reply_error(struct wire_request *request, const struct err *err)
{
    (void)request;
    got.count++;
    got.err = *err;
}

/* --- a host with one VM that runs; its QEMU is this process --- */

struct fixture {
    char folder[64], directory[96], memory[96], disks[96], disk[128], target[128], partial[PATH_MAX];
    struct options options;
    struct partitions_env env;
    struct partitions *ps;
    struct partition *p;
    uv_loop_t loop;
    struct hypervisor hypervisor;
    struct record_storage move;
    const char *settled; /* what somebody says is the disk */
};

static void changed(void *user)
{
    (void)user;
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err;
    char path[160];
    strcpy(f->folder, "/tmp/drover-storage-test-XXXXXX");
    ENSURE(mkdtemp(f->folder) && uv_loop_init(&f->loop) == 0);
    snprintf(f->directory, sizeof f->directory, "%s/host", f->folder);
    snprintf(f->memory, sizeof f->memory, "%s/memory", f->folder);
    snprintf(f->disks, sizeof f->disks, "%s/disks", f->folder);
    snprintf(f->disk, sizeof f->disk, "%s/old.raw", f->disks);
    snprintf(f->target, sizeof f->target, "%s/new.raw", f->disks);
    snprintf(path, sizeof path, "%s/outcomes", f->directory);
    ENSURE(file_make_dirs(f->disks, 0700, &err) == 0 && file_make_dirs(f->directory, 0700, &err) == 0);
    ENSURE(file_write(f->disk, "old", 3, 0600, &err) == 0);
    f->hypervisor.loop = f->env.loop = &f->loop;
    f->env.hypervisor = &f->hypervisor;
    f->env.boot_id = "b00t";
    f->env.on_change = changed;
    f->options.directory = f->directory;
    f->options.memory_directory = f->memory;
    f->options.storage_directories = f->disks;
    f->options.qemu_img = (char *)"qemu-img";
    f->env.options = &f->options;
    ENSURE(outcomes_open(path, &err, &f->env.outcomes) == 0);
    snprintf(path, sizeof path, "%s/ledger.json", f->directory);
    ENSURE(ledger_open(path, &err, &f->env.ledger) == 0);
    f->env.actions = actions_open(f->env.ledger);
    f->settled = "";
    strcpy(f->move.id, MOVE);
    strcpy(f->move.source, f->disk);
    strcpy(f->move.target, f->target);
    strcpy(f->move.format, "raw");
    ENSURE(place_where(f->target, &err, &f->move.where) == 0);
    place_partial(f->target, MOVE, f->partial);
    memset(&got, 0, sizeof got);
    look_fails = 0;
    looks_on_loop = 0;
    loop_thread = pthread_self();
    counting = false;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err;
    counting = false;
    actions_close(f->env.actions);
    partitions_close(f->ps);
    outcomes_close(f->env.outcomes);
    ledger_close(f->env.ledger);
    loop_close(&f->loop);
    int rc = file_remove_tree(f->folder, &err);
    free(f);
    return rc;
}

/* The record of an earlier hostd, with the move or without. */
static void adopt(struct fixture *f, bool moving)
{
    struct specs specs;
    struct err err;
    char path[PATH_MAX], directory[PATH_MAX];
    specs_make(&specs);
    specs.spec.n_nics = 0;
    specs.disk.path = f->disk;
    specs.disk.format = (char *)"raw";
    struct record record = {.vm_id = VM, .boot_id = "b00t", .generation = 7, .state = STATE_RUNNING};
    record.spec = &specs.spec;
    if (moving)
        record.storage = f->move;
    assert_int_equal(process_identify(getpid(), &err, &record.guest), 0);
    paths_directory(f->directory, VM, directory);
    assert_int_equal(file_make_dirs(directory, 0700, &err), 0);
    assert_int_equal(record_save(paths_file(directory, PATH_RECORD, path), &record, &err), 0);
    assert_int_equal(partitions_open(&f->env, &err, &f->ps), 0);
    f->p = partition_find(f->ps, VM);
    assert_non_null(f->p);
}

static void change_over(struct fixture *f)
{
    struct err err;
    assert_int_equal(place_make(f->target, MOVE, NULL, &err), 0);
    assert_int_equal(place_commit(f->target, MOVE, &err), 0);
}

static void wait_answer(struct fixture *f, unsigned count)
{
    while (got.count < count)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(got.count, count);
}

static Drover__StorageMove message(struct fixture *f)
{
    Drover__StorageMove move = DROVER__STORAGE_MOVE__INIT;
    move.disk = f->disk;
    move.target = f->target;
    move.file_system = f->move.where.file_system;
    move.inode = f->move.where.inode;
    return move;
}

/* STORAGE_QUERY with a fence; what was answered is in `got`. */
static void decide(struct fixture *f)
{
    Drover__StorageMove move = message(f);
    Drover__StorageQueryRequest query = DROVER__STORAGE_QUERY_REQUEST__INIT;
    query.migration_id = (char *)MOVE;
    query.move = &move;
    query.fence = true;
    query.vm_id = (char *)VM;
    query.generation = 7;
    move.settled = (char *)(uintptr_t)f->settled;
    unsigned before = got.count;
    storage_query(f->ps, &query, NULL);
    wait_answer(f, before + 1);
}

static bool kept(struct fixture *f)
{
    return outcomes_find(f->env.outcomes, MOVE) != NULL;
}

/* A hostd that has lost its records. */
static void know_nothing(struct fixture *f)
{
    struct err err;
    assert_int_equal(partitions_open(&f->env, &err, &f->ps), 0);
}

/* The directory is made anew, or back again. */
static void swap_directory(struct fixture *f, bool back)
{
    char aside[160];
    snprintf(aside, sizeof aside, "%s/mounted", f->folder);
    if (back) {
        assert_int_equal(rmdir(f->disks), 0);
        assert_int_equal(rename(aside, f->disks), 0);
    } else {
        assert_int_equal(rename(f->disks, aside), 0);
        assert_int_equal(mkdir(f->disks, 0700), 0);
    }
}

static void assert_doubt(struct fixture *f, const char *why)
{
    assert_int_equal(got.err.code, ERR_NONE);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT);
    assert_non_null(strstr(got.why, why));
    assert_false(kept(f));
}

static void files_that_are_not_seen_decide_nothing(void **state)
{
    struct fixture *f = *state;
    know_nothing(f);
    change_over(f);
    look_fails = EIO;
    decide(f);
    assert_doubt(f, "cannot be looked at");
    look_fails = 0;
    swap_directory(f, false);
    decide(f);
    assert_doubt(f, "mount");
    f->settled = f->target; /* which is not there: no VM could start from it */
    decide(f);
    assert_doubt(f, "not seen");
    swap_directory(f, true);
    f->settled = f->disk; /* but the files tell now */
    decide(f);
    assert_int_equal(access(f->partial, F_OK), 0);
    assert_int_equal(got.err.code, ERR_NONE);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
    assert_true(kept(f));
}

/* Where nothing else tells, somebody does: for good, and nothing is removed. */
static void somebody_settles_it(void **state)
{
    struct fixture *f = *state;
    struct err err;
    know_nothing(f);
    f->move.where = (struct place_where){0}; /* checked by a version that did not look */
    decide(f);
    assert_doubt(f, "nor is it known");
    f->settled = "/elsewhere";
    decide(f);
    assert_doubt(f, "nor is it known");
    assert_int_equal(file_write(f->target, "new", 3, 0600, &err), 0);
    f->settled = f->target;
    decide(f);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
    f->settled = f->disk; /* too late */
    decide(f);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
    assert_int_equal(access(f->disk, F_OK), 0);
}

static void somebody_settles_it_for_the_old_file(void **state)
{
    struct fixture *f = *state;
    know_nothing(f);
    change_over(f);
    look_fails = EIO;
    f->settled = f->disk;
    decide(f);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    assert_int_equal(access(f->target, F_OK), 0);
    assert_int_equal(access(f->partial, F_OK), 0);
}

/* The guest runs, or has run, with the file that its record names: nobody has to be asked. */
static void a_record_tells_which_file_is_in_use(void **state)
{
    struct fixture *f = *state;
    adopt(f, false);
    swap_directory(f, false);
    f->settled = f->target;
    decide(f);
    assert_int_equal(got.err.code, ERR_NONE);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    swap_directory(f, true);
}

static void a_record_that_names_the_new_file_tells_that(void **state)
{
    struct fixture *f = *state;
    adopt(f, false);
    Drover__Disk disk = *f->p->record.spec->disks[0];
    disk.path = f->target;
    spec_put_disk(f->p->record.spec, 0, &disk);
    look_fails = EIO;
    f->settled = f->disk;
    decide(f);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
}

/* That of another generation says nothing of this one's guest, and while there is any nobody is believed. */
static void a_record_of_another_generation_does_not_tell(void **state)
{
    struct fixture *f = *state;
    adopt(f, false);
    f->p->record.generation = 8;
    look_fails = EIO;
    f->settled = f->disk;
    decide(f);
    assert_doubt(f, "cannot be looked at");
    f->p->record.generation = 7; /* as it is to end */
}

/* The request to begin the move. */
static void ask_to_begin(struct fixture *f)
{
    Drover__StorageMove move = message(f);
    Drover__ActionKey key = DROVER__ACTION_KEY__INIT;
    Drover__StorageMoveRequest begin = DROVER__STORAGE_MOVE_REQUEST__INIT;
    key.job_id = 1;
    begin.key = &key;
    begin.migration_id = (char *)MOVE;
    begin.vm_id = (char *)VM;
    begin.generation = 7;
    begin.move = &move;
    storage_move(f->ps, &begin, NULL);
}

static void what_never_began_is_aborted_for_good(void **state)
{
    struct fixture *f = *state;
    adopt(f, false);
    decide(f);
    assert_int_equal(got.err.code, ERR_NONE);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    /* The request to begin that was still on its way. */
    ask_to_begin(f);
    wait_answer(f, 2);
    assert_int_equal(f->p->record.storage.id[0], 0);
}

/* Made anew before anything began: it is not waited for, because nothing is lost. */
static void another_directory_ends_it_before_it_begins(void **state)
{
    struct fixture *f = *state;
    adopt(f, false);
    swap_directory(f, false);
    struct err err;
    ENSURE(file_write(f->disk, "old", 3, 0600, &err) == 0);
    ask_to_begin(f);
    wait_answer(f, 1);
    assert_int_equal(got.err.code, ERR_WRONG_STATE);
    assert_non_null(strstr(got.err.message, "mount"));
    decide(f);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    assert_int_equal(unlink(f->disk), 0);
    swap_directory(f, true);
}

/* The door is shut while a thread looks for the request to begin. */
static void a_fence_overtakes_a_beginning(void **state)
{
    struct fixture *f = *state;
    adopt(f, false);
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    struct err err;
    ask_to_begin(f);
    assert_int_equal(got.count, 0);
    outcome.migration_id = (char *)MOVE;
    outcome.outcome = DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    assert_int_equal(outcomes_add(f->env.outcomes, &outcome, true, &err), 0);
    wait_answer(f, 1);
    assert_int_equal(f->p->record.storage.id[0], 0);
    assert_null(f->p->copy);
}

static void wait_kept(struct fixture *f, Drover__MigrationOutcome outcome)
{
    while (!kept(f))
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(outcomes_find(f->env.outcomes, MOVE)->outcome, outcome);
}

/* A hostd that has not got to look yet: it may have been killed between the link and its record. */
static void a_dead_guest_s_files_are_looked_at(void **state)
{
    struct fixture *f = *state;
    adopt(f, true);
    change_over(f);
    counting = true;
    storage_guest_dead(f->p);
    assert_int_equal(f->p->record.storage.id[0], 0);
    assert_false(kept(f));
    decide(f); /* asked meanwhile */
    assert_int_equal(got.err.code, ERR_UNAVAILABLE);
    wait_kept(f, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
    assert_int_equal(looks_on_loop, 0);
}

/* And where they cannot be seen, the record is as good: it names the new file before a guest runs with that. */
static void a_dead_guest_s_record_tells_without_its_files(void **state)
{
    struct fixture *f = *state;
    adopt(f, true);
    swap_directory(f, false);
    storage_guest_dead(f->p);
    wait_kept(f, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED);
    assert_non_null(outcomes_untold(f->env.outcomes, NULL)); /* the controllers need not ask */
    swap_directory(f, true);
}

/* What was told stands, whatever an old record says. */
static void what_was_told_stands(void **state)
{
    struct fixture *f = *state;
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    struct err err;
    adopt(f, true);
    change_over(f);
    outcome.migration_id = (char *)MOVE;
    outcome.outcome = DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    assert_int_equal(outcomes_add(f->env.outcomes, &outcome, true, &err), 0);
    look_fails = EIO;
    storage_guest_dead(f->p);
    while (f->ps->files)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(access(f->partial, F_OK), 0);
    assert_int_equal(outcomes_find(f->env.outcomes, MOVE)->outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
}

/* The definition names the new file only after the change-over: that is enough, whatever the files do. */
static void what_was_written_down_is_told(void **state)
{
    struct fixture *f = *state;
    adopt(f, true);
    change_over(f);
    Drover__Disk disk = *f->p->record.spec->disks[0];
    disk.path = f->target;
    spec_put_disk(f->p->record.spec, 0, &disk);
    look_fails = EIO;
    storage_guest_dead(f->p);
    const Drover__MigrateOutcomeRequest *outcome = outcomes_find(f->env.outcomes, MOVE);
    assert_non_null(outcome);
    assert_int_equal(outcome->outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN);
}

/* QEMU tells how far it is, whatever the files do; it is only waited until they do not hang. The record names the new
 * file once that is written down, and not before. */
static void an_adopted_copy_goes_by_qemu(void **state)
{
    struct fixture *f = *state;
    adopt(f, true);
    change_over(f);
    look_fails = ESTALE;
    storage_adopt(f->p);
    assert_null(f->p->copy);
    decide(f);
    assert_int_equal(got.err.code, ERR_UNAVAILABLE);
    while (!f->p->copy)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_string_equal(f->p->record.spec->disks[0]->path, f->disk);
    decide(f);
    assert_int_equal(got.outcome, DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY);
}

static void hostd_itself_waits_for_no_storage(void **state)
{
    struct fixture *f = *state;
    adopt(f, false);
    counting = true;
    Drover__StorageMove move = message(f);
    Drover__StorageCheckRequest check = DROVER__STORAGE_CHECK_REQUEST__INIT;
    check.vm_id = (char *)VM;
    check.generation = 7;
    check.move = &move;
    storage_check(f->ps, &check, NULL);
    assert_int_equal(got.count, 0);
    storage_check(f->ps, &check, NULL); /* asked again before the first has been answered: no second thread waits */
    assert_int_equal(got.count, 1);
    assert_int_equal(got.err.code, ERR_UNAVAILABLE);
    wait_answer(f, 2);
    assert_int_equal(got.err.code, ERR_NONE);
    assert_string_equal(got.target, f->target);
    assert_int_equal(got.inode, f->move.where.inode);
    decide(f);
    assert_int_equal(looks_on_loop, 0);
    /* Asked of a hostd that closes. */
    storage_check(f->ps, &check, NULL);
    partitions_close(f->ps);
    f->ps = NULL;
    wait_answer(f, 4);
    assert_int_equal(got.err.code, ERR_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_that_are_not_seen_decide_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_never_began_is_aborted_for_good, setup, teardown),
        cmocka_unit_test_setup_teardown(a_fence_overtakes_a_beginning, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_guest_s_files_are_looked_at, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_guest_s_record_tells_without_its_files, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_told_stands, setup, teardown),
        cmocka_unit_test_setup_teardown(somebody_settles_it, setup, teardown),
        cmocka_unit_test_setup_teardown(somebody_settles_it_for_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_record_tells_which_file_is_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(a_record_that_names_the_new_file_tells_that, setup, teardown),
        cmocka_unit_test_setup_teardown(a_record_of_another_generation_does_not_tell, setup, teardown),
        cmocka_unit_test_setup_teardown(another_directory_ends_it_before_it_begins, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_written_down_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(an_adopted_copy_goes_by_qemu, setup, teardown),
        cmocka_unit_test_setup_teardown(hostd_itself_waits_for_no_storage, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
