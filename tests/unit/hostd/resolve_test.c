/* The controllers say whose a guest in doubt is, again and again, while its QEMU is silent: hostd's partition, with a
 * process that sleeps and a monitor of cardboard in QEMU's place. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/jsonline.h"
#include "hostd/child.h"
#include "hostd/hypervisor/qemu/private.h"
#include "hostd/ledger.h"
#include "hostd/outcomes.h"
#include "hostd/partition/partition.h"
#include "hostd/partition/record.h"
#include "hostd/visits.h"
#include "proto/api.pb-c.h"
#include "tests/lib/until.h"
#include "tests/unit/hostd/specs.h"

#define VM      SPECS_VM_ID
#define MOVE    "11111111-1111-1111-1111-111111111111"
#define CALLS   4
#define WAIT_MS 60000

struct call {
    bool answered;
    enum err_code code;
};

struct fixture {
    uv_loop_t loop;
    char folder[64], directory[96], memory[96], partition[192];
    struct options options;
    struct hypervisor hv;
    struct partitions *ps;
    struct ledger *ledger;
    struct outcomes *outcomes;
    struct visits *visits;
    struct child *qemu;
    struct jsonline_server *listener;
    struct jsonline *monitor; /* NULL: nobody has connected */
    bool greeted, silent;
    json_t *unanswered; /* what it was asked while it was silent */
    struct wire *wire;
    struct wire_server *server;
    struct wire_client *client;
    struct call calls[CALLS];
};

static void qemu_ended(void *user, int status)
{
    (void)user, (void)status;
}

static void monitor_answer(struct fixture *f, json_t *request)
{
    const char *command = json_string_value(json_object_get(request, "execute"));
    bool migration = strcmp(command, "query-migrate") == 0;
    json_t *reply = json_pack("{s:{s:b, s:s}}", "return", "running", 1, "status", migration ? "none" : "running");
    json_t *id = json_object_get(request, "id");
    f->greeted = f->greeted || strcmp(command, "query-status") == 0;
    if (id)
        json_object_set(reply, "id", id);
    jsonline_send(f->monitor, reply);
}

static void monitor_asked(void *user, json_t *request)
{
    struct fixture *f = user;
    if (f->silent)
        json_array_append(f->unanswered, request);
    else
        monitor_answer(f, request);
}

static void monitor_speaks(struct fixture *f)
{
    size_t i;
    json_t *request;
    f->silent = false;
    json_array_foreach(f->unanswered, i, request) monitor_answer(f, request);
    json_array_clear(f->unanswered);
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

static bool on_auth(void *user, const uint8_t public_key[KEY_BYTES], struct principal *out)
{
    (void)user, (void)public_key;
    *out = (struct principal){.kind = PRINCIPAL_CONTROLLER, .name = "c1"};
    return true;
}

static void on_request(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct fixture *f = user;
    (void)peer, (void)method;
    Drover__MigrateResolveRequest *message = drover__migrate_resolve_request__unpack(NULL, len, body);
    migrate_resolve(f->ps, message, request);
    drover__migrate_resolve_request__free_unpacked(message, NULL);
}

static void on_answer(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct call *call = user;
    (void)body, (void)len;
    *call = (struct call){true, err ? err->code : ERR_NONE};
}

static void on_change(void *user)
{
    (void)user;
}

static int write_record(struct fixture *f)
{
    struct specs specs;
    struct err err;
    char path[PATH_MAX];
    specs_make(&specs);
    specs.spec.n_nics = 0;
    struct record record = {.vm_id = VM, .boot_id = "b00t", .generation = 3, .state = STATE_IN_DOUBT};
    record.spec = &specs.spec;
    record.guest = child_id(f->qemu);
    record.migration = (struct record_migration){.id = MOVE, .generation = 4, .to_host = "h2"};
    return record_save(paths_file(f->partition, PATH_RECORD, path), &record, &err);
}

static int open_partitions(struct fixture *f)
{
    struct err err;
    char ledger[128], outcomes[128];
    snprintf(ledger, sizeof ledger, "%s/ledger", f->directory);
    snprintf(outcomes, sizeof outcomes, "%s/outcomes", f->directory);
    if (ledger_open(ledger, &err, &f->ledger) < 0 || outcomes_open(outcomes, &err, &f->outcomes) < 0)
        return -1;
    f->options.directory = f->directory;
    f->options.memory_directory = f->memory;
    f->visits = visits_open(&(struct visits_options){.loop = &f->loop,
        .program = "false",
        .directory = f->directory,
        .key_directory = f->directory,
        .memory_directory = f->memory});
    const struct partitions_env env = {.loop = &f->loop,
        .options = &f->options,
        .hypervisor = &f->hv,
        .ledger = f->ledger,
        .outcomes = f->outcomes,
        .visits = f->visits,
        .boot_id = "b00t",
        .on_change = on_change};
    return partitions_open(&env, &err, &f->ps);
}

static int open_wire(struct fixture *f)
{
    struct err err;
    struct key_pair key;
    const struct wire_options options = {.handler = on_request, .user = f};
    if (key_generate(&err, &key) < 0 || wire_new(&f->loop, &key, "test", on_auth, f, &err, &f->wire) < 0 ||
        wire_server_open(f->wire, "tcp://127.0.0.1:0", &options, &err, &f->server) < 0)
        return -1;
    return wire_client_open(
        f->wire, wire_server_address(f->server), key.public_key, &(struct wire_options){0}, &err, &f->client);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err;
    char path[PATH_MAX], log[PATH_MAX];
    char *argv[] = {(char *)"sleep", (char *)"1000", NULL};
    struct child_options child = {.argv = argv, .log_path = log};
    *state = f;
    ENSURE(uv_loop_init(&f->loop) == 0);
    strcpy(f->folder, "/tmp/drover-resolve-test-XXXXXX");
    ENSURE(mkdtemp(f->folder) != NULL);
    snprintf(f->directory, sizeof f->directory, "%s/host", f->folder);
    snprintf(f->memory, sizeof f->memory, "%s/memory", f->folder);
    snprintf(f->partition, sizeof f->partition, "%s/partitions/%s", f->directory, VM);
    f->hv = (struct hypervisor){.loop = &f->loop, .ready_ms = 5000, .settle_ms = 40};
    f->unanswered = json_array();
    if (file_make_dirs(f->partition, 0700, &err) < 0)
        return -1;
    paths_file(f->partition, PATH_QEMU_LOG, log);
    if (child_fork(&f->loop, &child, qemu_ended, f, &err, &f->qemu) < 0 || child_release(f->qemu, &err) < 0 ||
        jsonline_listen(&f->loop, paths_file(f->partition, PATH_QMP, path), monitor_accepted, f, &err, &f->listener) <
            0)
        return -1;
    return write_record(f) < 0 || open_partitions(f) < 0 || open_wire(f) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err;
    partitions_close(f->ps);
    visits_close(f->visits);
    wire_client_close(f->client);
    wire_server_close(f->server);
    wire_free(f->wire);
    outcomes_close(f->outcomes);
    ledger_close(f->ledger);
    child_abandon(f->qemu);
    jsonline_close(f->monitor);
    jsonline_server_close(f->listener);
    json_decref(f->unanswered);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_close(&f->loop);
    int rc = file_remove_tree(f->folder, &err);
    free(f);
    return rc;
}

static bool monitor_greeted(void *user)
{
    return ((struct fixture *)user)->greeted;
}

/* To give up what is under way, which is the first that is asked of a guest that is to run. */
static bool monitor_was_asked(void *user)
{
    size_t i;
    json_t *request;
    json_array_foreach(((struct fixture *)user)->unanswered, i, request)
    {
        if (strcmp(json_string_value(json_object_get(request, "execute")), "migrate_cancel") == 0)
            return true;
    }
    return false;
}

static bool was_answered(void *user)
{
    return ((struct call *)user)->answered;
}

/* The n-th call: the controllers have it run here under this generation. */
static struct call *resume(struct fixture *f, int n, uint64_t generation)
{
    Drover__MigrateResolveRequest message = DROVER__MIGRATE_RESOLVE_REQUEST__INIT;
    message.migration_id = (char *)MOVE;
    message.vm_id = (char *)VM;
    message.generation = generation;
    message.resume = true;
    wire_call(
        wire_client_peer(f->client), DROVER__METHOD__MIGRATE_RESOLVE, &message.base, WAIT_MS, on_answer, &f->calls[n]);
    return &f->calls[n];
}

static enum err_code answer_to(struct fixture *f, struct call *call)
{
    assert_true(loop_until(&f->loop, was_answered, call));
    return call->code;
}

static void assert_is(struct fixture *f, enum partition_state state, uint64_t generation, bool resuming)
{
    struct record record;
    struct reports reports;
    struct err err;
    char path[PATH_MAX];
    assert_int_equal(record_load(paths_file(f->partition, PATH_RECORD, path), &err, &record), 0);
    assert_int_equal(record.state, state);
    assert_int_equal(record.generation, generation);
    record_clear(&record);
    partitions_report(f->ps, 1, false, &reports);
    assert_int_equal(reports.count, 1);
    assert_int_equal(reports.list[0]->generation, generation);
    assert_int_equal(reports.list[0]->resuming, resuming);
    reports_free(&reports);
}

/* Whoever gave it a later generation meanwhile must not find it running under an earlier one. */
static void a_silent_guest_takes_the_last_generation(void **state)
{
    struct fixture *f = *state;
    assert_true(loop_until(&f->loop, monitor_greeted, f));
    assert_is(f, STATE_IN_DOUBT, 3, false);
    f->silent = true;
    struct call *first = resume(f, 0, 5);
    assert_true(loop_until(&f->loop, monitor_was_asked, f));
    assert_is(f, STATE_IN_DOUBT, 5, true);
    struct call *second = resume(f, 1, 6);
    assert_int_equal(answer_to(f, first), ERR_BUSY);
    assert_is(f, STATE_IN_DOUBT, 6, true);
    assert_int_equal(answer_to(f, resume(f, 2, 5)), ERR_INVALID); /* one that was late */
    assert_false(second->answered);
    monitor_speaks(f);
    assert_int_equal(answer_to(f, second), ERR_NONE);
    assert_is(f, STATE_RUNNING, 6, false);
}

/* It was too late to tell it while it was in doubt. */
static void a_guest_that_runs_takes_a_later_generation(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(answer_to(f, resume(f, 0, 5)), ERR_NONE);
    assert_is(f, STATE_RUNNING, 5, false);
    assert_int_equal(answer_to(f, resume(f, 1, 5)), ERR_NONE);
    assert_int_equal(answer_to(f, resume(f, 2, 6)), ERR_NONE);
    assert_is(f, STATE_RUNNING, 6, false);
    assert_int_equal(answer_to(f, resume(f, 3, 5)), ERR_WRONG_STATE);
    assert_is(f, STATE_RUNNING, 6, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_silent_guest_takes_the_last_generation, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_that_runs_takes_a_later_generation, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
