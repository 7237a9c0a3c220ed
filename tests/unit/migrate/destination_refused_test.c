/* What a destination makes of a QEMU that refuses to run the guest: one of cardboard, which refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/record.h"
#include "tests/unit/migrate/destination_fixture.h"

#define CONTS_REFUSED 3u
#define FOR_GOOD      UINT_MAX

static void obstacle_path(const struct fixture *f, size_t size, char *out)
{
    snprintf(out, size, "%s.%d.tmp", f->record, (int)getpid());
}

static void qemu_first_refusal(struct fixture *f, int fd)
{
    char path[96];
    obstacle_path(f, sizeof path, path);
    if (f->starts)
        dprintf(fd, "{\"event\":\"RESUME\",\"timestamp\":{\"seconds\":1,\"microseconds\":0}}\n");
    if (f->full && mkdir(path, 0700) < 0)
        abort();
    if (f->robbed)
        record_unprepare(f->record);
}

/* A QEMU that takes any command but the first `cont`s. */
static void *qemu_main(void *arg)
{
    struct fixture *f = arg;
    char line[512];
    int fd = accept(f->listener, NULL, NULL);
    FILE *stream = fdopen(fd, "r");
    dprintf(fd, "{\"QMP\":{\"version\":{\"qemu\":{\"major\":10,\"minor\":0,\"micro\":2}},\"capabilities\":[]}}\n");
    while (fgets(line, sizeof line, stream)) {
        json_t *command = json_loads(line, 0, NULL);
        const char *name = json_string_value(json_object_get(command, "execute"));
        bool cont = name && strcmp(name, "cont") == 0;
        unsigned number = cont ? atomic_fetch_add(&f->conts, 1) + 1 : 0;
        if (number == 1 && f->refusals)
            qemu_first_refusal(f, fd);
        dprintf(fd,
            cont && number <= f->refusals ? "{\"error\":{\"class\":\"GenericError\",\"desc\":\"%s\"},\"id\":%lld}\n"
                                          : "{\"return\":{\"status\":\"%s\"},\"id\":%lld}\n",
            cont ? "locked" : f->status, (long long)json_integer_value(json_object_get(command, "id")));
        json_decref(command);
    }
    fclose(stream);
    return NULL;
}

static void hand_over(struct fixture *f)
{
    Drover__EngineHandOver message = DROVER__ENGINE_HAND_OVER__INIT;
    message.migration_id = mine;
    fixture_ask(f, DROVER__ENGINE_METHOD__ENGINE_HAND_OVER, &message.base);
}

/* All is here, and its source hands over to a QEMU that refuses so often to run the guest. */
static void hand_over_to_qemu(struct fixture *f, unsigned refusals)
{
    struct err err;
    struct destination *d = &f->d;
    f->refusals = refusals;
    if (!f->status)
        f->status = "paused";
    assert_int_equal(record_prepare_failed(f->record, mine, &err), 0);
    assert_int_equal(control_open(&d->side.loop, f->control, NULL, NULL, &err, &d->side.control), 0);
    fixture_qemu_listen(f);
    assert_int_equal(pthread_create(&f->qemu, NULL, qemu_main, f), 0);
    f->qemu_runs = true;
    fixture_qemu_open(f);
    d->phase = DESTINATION_LOADED;
    hand_over(f);
}

static void await(struct fixture *f, enum destination_phase phase)
{
    while (f->d.phase != phase && !f->late)
        uv_run(&f->d.side.loop, UV_RUN_ONCE);
    assert_int_equal(f->d.phase, phase);
}

static void await_answer(struct fixture *f, enum err_code code)
{
    while (!f->answered && !f->late)
        uv_run(&f->d.side.loop, UV_RUN_ONCE);
    assert_true(f->answered);
    assert_int_equal(f->code, code);
}

/* It is told that the guest was not taken yet, and asks once more. */
static void ask_again(struct fixture *f)
{
    await_answer(f, ERR_WRONG_STATE);
    assert_int_equal(f->d.phase, DESTINATION_OWNER);
    assert_true(record_says(f->record, mine, "owner"));
    hand_over(f);
}

/* Somebody else has one of its disks open for a moment: that costs no guest, and the source hears when it runs. */
static void test_a_guest_that_is_refused_at_first_is_started(void **state)
{
    struct fixture *f = *state;
    hand_over_to_qemu(f, CONTS_REFUSED);
    await_answer(f, ERR_NONE);
    assert_false(f->refused);
    assert_int_equal(f->conts, CONTS_REFUSED + 1);
    assert_int_equal(f->d.phase, DESTINATION_DONE);
    assert_true(record_says(f->record, mine, "owner"));
}

/* It has not run here and cannot: its source may have it back. */
static void test_a_guest_that_is_refused_for_good_is_returned(void **state)
{
    struct fixture *f = *state;
    hand_over_to_qemu(f, FOR_GOOD);
    ask_again(f);
    await_answer(f, ERR_NONE);
    assert_true(f->refused);
    assert_true(f->conts > 1);
    assert_int_equal(f->d.phase, DESTINATION_FAILED);
    assert_true(record_says(f->record, mine, "failed"));
}

/* A disk that has become full since keeps the guest from nobody. */
static void test_a_guest_is_returned_without_room_on_the_disk(void **state)
{
    struct fixture *f = *state;
    char path[96];
    obstacle_path(f, sizeof path, path);
    f->full = true;
    hand_over_to_qemu(f, FOR_GOOD);
    ask_again(f);
    await_answer(f, ERR_NONE);
    assert_true(f->refused);
    assert_true(record_says(f->record, mine, "failed"));
    assert_int_equal(rmdir(path), 0);
}

/* The guest is whole here, and perhaps nowhere else any more. */
static void test_a_guest_whose_source_is_silent_is_kept(void **state)
{
    struct fixture *f = *state;
    hand_over_to_qemu(f, FOR_GOOD);
    await_answer(f, ERR_WRONG_STATE);
    await(f, DESTINATION_FAILED);
    assert_true(record_says(f->record, mine, "owner"));
}

/* The source hears nothing before it is on record, and from then on QEMU is not asked once more. */
static void test_a_guest_is_returned_by_the_record_first(void **state)
{
    struct fixture *f = *state;
    char path[96];
    obstacle_path(f, sizeof path, path);
    f->full = f->robbed = true;
    hand_over_to_qemu(f, FOR_GOOD);
    ask_again(f);
    await(f, DESTINATION_RETURNING);
    unsigned conts = f->conts;
    assert_true(record_says(f->record, mine, "owner"));
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "QEMU has ended");
    destination_fail(&f->d, &err); /* which changes nothing about whose it is */
    assert_int_equal(f->d.phase, DESTINATION_RETURNING);
    assert_false(f->answered);
    assert_int_equal(rmdir(path), 0);
    await_answer(f, ERR_NONE);
    assert_true(f->refused);
    assert_int_equal(f->conts, conts);
    assert_true(record_says(f->record, mine, "failed"));
}

/* Then it is this host's, whatever QEMU says: the source hears nothing, and the record stays. */
static void keeps_it(struct fixture *f)
{
    hand_over_to_qemu(f, FOR_GOOD);
    await(f, DESTINATION_FAILED);
    assert_false(f->refused);
    assert_true(record_says(f->record, mine, "owner"));
}

static void test_a_guest_that_was_told_to_run_is_not_returned(void **state)
{
    struct fixture *f = *state;
    f->starts = true;
    keeps_it(f);
}

static void test_a_guest_that_may_have_run_is_not_returned(void **state)
{
    struct fixture *f = *state;
    f->status = "internal-error";
    keeps_it(f);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_guest_that_is_refused_at_first_is_started, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            test_a_guest_that_is_refused_for_good_is_returned, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            test_a_guest_is_returned_without_room_on_the_disk, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_whose_source_is_silent_is_kept, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_is_returned_by_the_record_first, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            test_a_guest_that_was_told_to_run_is_not_returned, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            test_a_guest_that_may_have_run_is_not_returned, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
