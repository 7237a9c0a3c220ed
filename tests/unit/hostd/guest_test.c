/* A guest whose QEMU is a process that sleeps and a monitor of cardboard: what hostd does about one that is silent, or
 * does not come out of a migration. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/jsonline.h"
#include "hostd/child.h"
#include "hostd/hypervisor/qemu/private.h"
#include "hostd/partition/paths.h"
#include "tests/lib/until.h"

struct fixture {
    uv_loop_t loop;
    struct hypervisor hv;
    char folder[64];
    struct child *qemu;
    struct jsonline_server *server;
    struct jsonline *monitor; /* NULL: nobody has connected */
    struct guest *guest;
    const char *run_state, *migration;
    const char *refusal; /* why it does not run the guest; NULL: it does */
    unsigned silent;     /* how many times it still does not say how it stands */
    unsigned asked;      /* how often it was asked to */
    bool ready, resumed;
    bool room;          /* the requests that failed would not fail again */
    unsigned continued; /* how often it was told to go on */
    unsigned told;
    char halted[256]; /* why it stands still; empty: it does not */
    struct err failure;
};

static void qemu_ended(void *user, int status)
{
    (void)user, (void)status;
}

static void answer(struct fixture *f, json_t *request, json_t *result)
{
    json_t *id = json_object_get(request, "id");
    json_t *reply = json_pack("{s:o}", "return", result);
    if (id)
        json_object_set(reply, "id", id);
    jsonline_send(f->monitor, reply);
}

static void monitor_asked(void *user, json_t *request)
{
    struct fixture *f = user;
    const char *command = json_string_value(json_object_get(request, "execute"));
    if (strcmp(command, "query-status") == 0) {
        f->asked++;
        if (f->silent > 0) {
            f->silent--;
            return;
        }
        answer(f, request,
            json_pack("{s:b, s:s}", "running", strcmp(f->run_state, "running") == 0, "status", f->run_state));
    } else if (strcmp(command, "query-migrate") == 0) {
        answer(f, request, json_pack("{s:s}", "status", f->migration));
    } else if (strcmp(command, "query-block") == 0) {
        answer(f, request,
            json_pack("[{s:s, s:{s:s}}, {s:s, s:{s:s}}]", "io-status", "ok", "inserted", "file", "/srv/a.raw",
                "io-status", "nospace", "inserted", "file", "/srv/b.raw"));
    } else if (strcmp(command, "cont") == 0 && f->refusal) {
        json_t *why = json_pack("{s:{s:s, s:s}}", "error", "class", "GenericError", "desc", f->refusal);
        json_object_set(why, "id", json_object_get(request, "id"));
        jsonline_send(f->monitor, why);
    } else {
        f->continued += strcmp(command, "cont") == 0;
        if (f->room && strcmp(command, "cont") == 0)
            f->run_state = "running";
        answer(f, request, json_object());
    }
}

static void monitor_accepted(void *user, int fd)
{
    struct fixture *f = user;
    struct err err;
    const struct jsonline_options options = {.on_message = monitor_asked, .user = f};
    assert_int_equal(jsonline_open(&f->loop, fd, &options, &err, &f->monitor), 0);
    jsonline_send(f->monitor, json_pack("{s:{s:{s:{s:i, s:i, s:i}}, s:[]}}", "QMP", "version", "qemu", "major", 10,
                                  "minor", 0, "micro", 2, "capabilities"));
}

static void guest_is_ready(void *user, bool running)
{
    (void)running;
    ((struct fixture *)user)->ready = true;
}

static void guest_is_halted(void *user, const char *why)
{
    struct fixture *f = user;
    f->told++;
    snprintf(f->halted, sizeof f->halted, "%s", why ? why : "");
}

static void guest_has_ended(void *user, bool by_guest, const char *why)
{
    (void)user, (void)by_guest;
    fail_msg("the guest was ended: %s", why);
}

static void guest_was_resumed(void *user, const struct err *err)
{
    struct fixture *f = user;
    f->resumed = true;
    f->failure = err ? *err : (struct err){0};
}

static bool is_ready(void *user)
{
    return ((struct fixture *)user)->ready;
}

static bool is_resumed(void *user)
{
    return ((struct fixture *)user)->resumed;
}

static int setup(void **state)
{
    struct err err;
    struct fixture *f = mem_zalloc(sizeof *f);
    char path[PATH_MAX], log[PATH_MAX];
    char *argv[] = {(char *)"sleep", (char *)"1000", NULL};
    struct child_options child = {.argv = argv, .log_path = log, .mortal = true};
    ENSURE(uv_loop_init(&f->loop) == 0);
    strcpy(f->folder, "/tmp/drover-guest-test-XXXXXX");
    ENSURE(mkdtemp(f->folder) != NULL);
    paths_file(f->folder, PATH_QEMU_LOG, log);
    f->hv = (struct hypervisor){.loop = &f->loop, .ready_ms = 20, .settle_ms = 40};
    f->run_state = "running";
    f->migration = "none";
    *state = f;
    if (child_fork(&f->loop, &child, qemu_ended, f, &err, &f->qemu) < 0 || child_release(f->qemu, &err) < 0)
        return -1;
    return jsonline_listen(&f->loop, paths_file(f->folder, PATH_QMP, path), monitor_accepted, f, &err, &f->server);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err;
    guest_free(f->guest);
    child_abandon(f->qemu);
    jsonline_close(f->monitor);
    jsonline_server_close(f->server);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_close(&f->loop);
    int rc = file_remove_tree(f->folder, &err);
    free(f);
    return rc;
}

static void adopt(struct fixture *f)
{
    struct err err;
    const struct guest_events events = {NULL, guest_is_ready, guest_is_halted, guest_has_ended, f};
    assert_int_equal(guest_adopt(&f->hv, f->folder, child_id(f->qemu), &events, &err, &f->guest), 0);
    assert_true(loop_until(&f->loop, is_ready, f));
}

/* Storage that is away for a minute holds QEMU's monitor up, and a hostd that is restarted meanwhile hears nothing. */
static void an_adopted_guest_may_be_silent(void **state)
{
    struct fixture *f = *state;
    f->silent = 3;
    adopt(f);
    assert_true(child_running(f->qemu));
    assert_true(f->asked >= 4); /* a busy machine may have it asked once more */
}

static void resume(struct fixture *f, const char *migration, const char *run_state)
{
    f->migration = migration;
    f->run_state = run_state;
    guest_resume(f->guest, guest_was_resumed, f);
    assert_true(loop_until(&f->loop, is_resumed, f));
}

static void a_guest_that_runs_is_resumed(void **state)
{
    struct fixture *f = *state;
    adopt(f);
    resume(f, "cancelled", "running");
    assert_int_equal(f->failure.code, ERR_NONE);
}

/* Its thread hangs somewhere, and the guest does not. */
static void a_guest_runs_though_its_migration_hangs(void **state)
{
    struct fixture *f = *state;
    adopt(f);
    resume(f, "cancelling", "running");
    assert_int_equal(f->failure.code, ERR_NONE);
}

static void a_migration_that_hangs_is_named(void **state)
{
    struct fixture *f = *state;
    adopt(f);
    resume(f, "cancelling", "finish-migrate");
    assert_int_equal(f->failure.code, ERR_TIMEOUT);
    assert_non_null(strstr(f->failure.message, "cancelling"));
    f->resumed = false; /* and it may be asked again */
    resume(f, "cancelled", "paused");
    assert_int_equal(f->failure.code, ERR_NONE);
}

/* Somebody else has one of its disks: that may end, and the guest is whole. One that broke down does not come back. */
static void a_refusal_is_for_good_only_of_a_broken_guest(void **state)
{
    struct fixture *f = *state;
    adopt(f);
    f->refusal = "Failed to get \"write\" lock";
    resume(f, "cancelled", "paused");
    assert_int_equal(f->failure.code, ERR_BUSY);
    assert_non_null(strstr(f->failure.message, f->refusal));
    f->resumed = false;
    resume(f, "cancelled", "internal-error");
    assert_int_equal(f->failure.code, ERR_WRONG_STATE);
    f->refusal = NULL;
    f->resumed = false;
    resume(f, "cancelled", "paused");
    assert_int_equal(f->failure.code, ERR_NONE);
}

/* It may yet stop the guest: it was not called off. */
static void a_migration_at_work_is_no_resumed_guest(void **state)
{
    struct fixture *f = *state;
    adopt(f);
    resume(f, "active", "running");
    assert_int_equal(f->failure.code, ERR_TIMEOUT);
}

static bool is_halted(void *user)
{
    return ((struct fixture *)user)->halted[0] != '\0';
}

static bool runs_again(void *user)
{
    struct fixture *f = user;
    return f->told && !f->halted[0];
}

static bool was_continued(void *user)
{
    return ((struct fixture *)user)->continued > 0;
}

static void fail_write(struct fixture *f)
{
    f->run_state = "io-error";
    jsonline_send(f->monitor, json_pack("{s:s, s:{s:s}, s:{s:i, s:i}}", "event", "BLOCK_IO_ERROR", "data", "action",
                                  "stop", "timestamp", "seconds", 1, "microseconds", 0));
    jsonline_send(
        f->monitor, json_pack("{s:s, s:{s:i, s:i}}", "event", "STOP", "timestamp", "seconds", 1, "microseconds", 0));
}

static void a_guest_without_room_on_its_disk_is_halted_until_there_is(void **state)
{
    struct fixture *f = *state;
    adopt(f);
    fail_write(f);
    assert_true(loop_until(&f->loop, is_halted, f));
    assert_string_equal(f->halted, "the storage of its disk /srv/b.raw is full");
    guest_continue(f->guest); /* in vain */
    assert_true(loop_until(&f->loop, was_continued, f));
    assert_true(is_halted(f));
    f->room = true;
    guest_continue(f->guest);
    assert_true(loop_until(&f->loop, runs_again, f));
}

/* As an earlier hostd left it. */
static void a_halted_guest_is_known_when_it_is_adopted(void **state)
{
    struct fixture *f = *state;
    f->run_state = "io-error";
    adopt(f);
    assert_true(loop_until(&f->loop, is_halted, f));
}

/* A migration, or whoever else has stopped it, is not to be interfered with. */
static void only_a_halted_guest_is_continued(void **state)
{
    struct fixture *f = *state;
    adopt(f);
    fail_write(f);
    assert_true(loop_until(&f->loop, is_halted, f));
    f->run_state = "postmigrate";
    guest_continue(f->guest);
    assert_true(loop_until(&f->loop, runs_again, f));
    assert_int_equal(f->continued, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_adopted_guest_may_be_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_that_runs_is_resumed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_runs_though_its_migration_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(a_migration_that_hangs_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refusal_is_for_good_only_of_a_broken_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(a_migration_at_work_is_no_resumed_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_without_room_on_its_disk_is_halted_until_there_is, setup, teardown),
        cmocka_unit_test_setup_teardown(a_halted_guest_is_known_when_it_is_adopted, setup, teardown),
        cmocka_unit_test_setup_teardown(only_a_halted_guest_is_continued, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
