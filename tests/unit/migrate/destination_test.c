/* What a destination makes of a source that errs, or is another one's, and of a QEMU that refuses: its functions,
 * behind a connection of their own. Where a QEMU must be there, it is a socket that never answers, or one of cardboard.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "migrate/batch.h"
#include "migrate/destination_private.h"
#include "migrate/record.h"
#include "migrate/seal.h"
#include "tests/unit/migrate/memory_file.h"

#define PAGES   16u
#define WAIT_MS 20000u

#define CONTS_REFUSED 3u
#define FOR_GOOD      UINT_MAX

struct fixture {
    struct destination d;
    struct options options;
    struct wire_client *client;
    struct loop_timer *bound;
    char directory[32], record[64], qmp[64], control[64];
    int listener;   /* where QEMU would be */
    pthread_t qemu; /* one of cardboard, while `qemu_runs` */
    bool qemu_runs;
    atomic_uint conts;  /* asked of it */
    unsigned refusals;  /* of so many of them */
    const char *status; /* of its guest, when it is asked */
    bool starts,
        obstacle; /* with its first refusal: it says that the guest runs; nothing can be written down any more */
    bool answered, late, refused;
    enum err_code code; /* of the answer */
};

static struct fixture fixture;
static char mine[] = "11111111-1111-1111-1111-111111111111", anothers[] = "22222222-2222-2222-2222-222222222222";
static char none[] = "", senseless[] = "x";

static bool on_auth(void *user, const uint8_t public_key[KEY_BYTES], struct principal *out)
{
    (void)user;
    (void)public_key;
    *out = (struct principal){.kind = PRINCIPAL_HOST, .name = "source"};
    return true;
}

static void on_request(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct fixture *f = user;
    if (method == DROVER__ENGINE_METHOD__ENGINE_HELLO)
        destination_on_hello(&f->d, request, peer, body, len);
    else
        destination_on_hand_over(&f->d, request, peer, body, len);
}

static void on_gone(void *user, const struct err *err)
{
    (void)user;
    (void)err;
}

static void on_late(void *user)
{
    struct fixture *f = user;
    f->late = true;
}

static void on_answer(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct fixture *f = user;
    f->answered = true;
    f->code = err ? err->code : ERR_NONE;
    Drover__EngineHandOverReply *reply = err ? NULL : drover__engine_hand_over_reply__unpack(NULL, len, body);
    f->refused = reply && reply->refused;
    drover__engine_hand_over_reply__free_unpacked(reply, NULL);
}

static void call(struct fixture *f, uint32_t method, const ProtobufCMessage *message)
{
    f->answered = f->late = false;
    wire_call(wire_client_peer(f->client), method, message, WAIT_MS, on_answer, f);
    loop_timer_start(f->bound, WAIT_MS, 0);
    while (!f->answered && !f->late)
        uv_run(&f->d.side.loop, UV_RUN_ONCE);
    loop_timer_stop(f->bound);
    assert_true(f->answered);
}

static void hand_over(struct fixture *f, char *migration)
{
    Drover__EngineHandOver message = DROVER__ENGINE_HAND_OVER__INIT;
    message.migration_id = migration;
    call(f, DROVER__ENGINE_METHOD__ENGINE_HAND_OVER, &message.base);
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    struct destination *d = &f->d;
    struct key_pair key;
    struct err err;
    *f = (struct fixture){.directory = "/tmp/drover-test-XXXXXX", .listener = -1};
    if (!mkdtemp(f->directory))
        return -1;
    snprintf(f->record, sizeof f->record, "%s/record", f->directory);
    snprintf(f->qmp, sizeof f->qmp, "%s/qmp", f->directory);
    snprintf(f->control, sizeof f->control, "%s/control", f->directory);
    f->options = (struct options){.migration_id = mine,
        .record_file = f->record,
        .ram_bytes = PAGES * PAGE_BYTES,
        .stripes = 1,
        .image = none,
        .disks = none,
        .announce_interface = none,
        .announce_macs = none,
        .announce_addresses = none};
    d->side.options = &f->options;
    d->side.ram = memory_file(PAGES);
    d->announce_socket = -1;
    quota_init(&d->side.quota);
    uv_loop_init(&d->side.loop);
    f->bound = loop_timer_new(&d->side.loop, on_late, f);
    d->starter = loop_timer_new(&d->side.loop, destination_start, d);
    d->announcer = loop_timer_new(&d->side.loop, destination_announce, d);
    const struct wire_options options = {.handler = on_request, .user = f};
    if (key_generate(&err, &key) < 0 || wire_new(&d->side.loop, &key, "test", on_auth, f, &err, &d->side.wire) < 0 ||
        wire_server_open(d->side.wire, "tcp://127.0.0.1:0", &options, &err, &d->server) < 0 ||
        wire_client_open(d->side.wire, wire_server_address(d->server), key.public_key, &(struct wire_options){0}, &err,
            &f->client) < 0)
        return -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct destination *d = &f->d;
    receiver_close(d->receiver, NULL);
    statepipe_close(d->pipe);
    guestclock_free(&d->clock);
    relay_close(d->relay);
    digests_free(&d->digests);
    if (d->hand_over) { /* that it kept to itself */
        struct err err;
        err_set(&err, ERR_CANCELLED, "over");
        wire_reply_error(d->hand_over, &err);
    }
    wire_client_close(f->client);
    wire_server_close(d->server);
    wire_free(d->side.wire);
    guest_close(d->side.guest);
    control_close(d->side.control);
    loop_timer_free(d->deadline);
    loop_timer_free(d->starter);
    loop_timer_free(d->announcer);
    loop_timer_free(f->bound);
    uv_run(&d->side.loop, UV_RUN_DEFAULT); /* the monitor's connection closes in its own time */
    if (f->qemu_runs)
        pthread_join(f->qemu, NULL);
    loop_close(&d->side.loop);
    ram_close(&d->side.ram);
    if (f->listener >= 0)
        close(f->listener);
    unlink(f->record);
    unlink(f->qmp);
    rmdir(f->directory);
    return 0;
}

/* Engines of a host share its key, and a port may be given to the next one: what comes may be another migration's. */
static void test_a_hand_over_of_another_migration_changes_nothing(void **state)
{
    struct fixture *f = *state;
    for (enum destination_phase phase = DESTINATION_LISTENING; phase < DESTINATION_OWNER; phase++) {
        f->d.phase = phase;
        hand_over(f, anothers);
        assert_int_equal(f->code, ERR_INVALID); /* and not "refused", which would have that source run its guest */
        assert_int_equal(f->d.phase, phase);
        assert_null(f->d.source);
        assert_int_not_equal(access(f->record, F_OK), 0);
    }
}

static void test_a_hand_over_that_comes_too_early_is_refused(void **state)
{
    struct fixture *f = *state;
    f->d.phase = DESTINATION_RECEIVING;
    hand_over(f, mine);
    assert_int_equal(f->code, ERR_NONE);
    assert_true(f->refused);
    assert_int_equal(f->d.phase, DESTINATION_FAILED);
    assert_true(record_says(f->record, mine, "failed"));
}

static void send_state(struct fixture *f, uint8_t *data, size_t len)
{
    Drover__EngineState state = DROVER__ENGINE_STATE__INIT;
    uint8_t body[64];
    state.offset = f->d.state_bytes;
    state.data = (ProtobufCBinaryData){len, data};
    destination_on_state(&f->d, body, drover__engine_state__pack(&state, body));
}

/* The guest runs here: whatever its source says of its state, it goes on. */
static void test_state_that_comes_too_late_costs_no_guest(void **state)
{
    struct fixture *f = *state;
    uint8_t data[4] = {1};
    for (enum destination_phase phase = DESTINATION_OWNER; phase <= DESTINATION_DONE; phase++) {
        f->d.phase = phase;
        send_state(f, data, sizeof data);
        assert_int_equal(f->d.phase, phase);
        assert_int_not_equal(access(f->record, F_OK), 0);
    }
    f->d.phase = DESTINATION_RECEIVING;
    send_state(f, data, sizeof data);
    assert_int_equal(f->d.phase, DESTINATION_FAILED);
}

static void qemu_listen(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, f->qmp);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(f->listener, 1), 0);
}

static void qemu_open(struct fixture *f)
{
    struct err err;
    const struct guest_events events = {.on_gone = on_gone, .on_resumed = destination_on_resumed, .user = &f->d};
    assert_int_equal(guest_open(&f->d.side.loop, f->qmp, &events, &err, &f->d.side.guest), 0);
}

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
    if (f->obstacle && mkdir(path, 0700) < 0)
        abort();
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

/* All is here, and its source hands over to a QEMU that refuses so often to run the guest. */
static void hand_over_to_qemu(struct fixture *f, unsigned refusals)
{
    struct err err;
    struct destination *d = &f->d;
    Drover__EngineHandOver message = DROVER__ENGINE_HAND_OVER__INIT;
    message.migration_id = mine;
    f->refusals = refusals;
    if (!f->status)
        f->status = "paused";
    assert_int_equal(control_open(&d->side.loop, f->control, NULL, NULL, &err, &d->side.control), 0);
    qemu_listen(f);
    assert_int_equal(pthread_create(&f->qemu, NULL, qemu_main, f), 0);
    f->qemu_runs = true;
    qemu_open(f);
    d->phase = DESTINATION_READY;
    f->answered = f->late = false;
    wire_call(
        wire_client_peer(f->client), DROVER__ENGINE_METHOD__ENGINE_HAND_OVER, &message.base, WAIT_MS, on_answer, f);
    loop_timer_start(f->bound, WAIT_MS, 0);
}

static void await(struct fixture *f, enum destination_phase phase)
{
    while (f->d.phase != phase && !f->late)
        uv_run(&f->d.side.loop, UV_RUN_ONCE);
    assert_int_equal(f->d.phase, phase);
}

static void await_answer(struct fixture *f)
{
    while (!f->answered && !f->late)
        uv_run(&f->d.side.loop, UV_RUN_ONCE);
    assert_true(f->answered);
    assert_int_equal(f->code, ERR_NONE);
}

/* Somebody else has one of its disks open for a moment: that costs no guest, and the source hears when it runs. */
static void test_a_guest_that_is_refused_at_first_is_started(void **state)
{
    struct fixture *f = *state;
    hand_over_to_qemu(f, CONTS_REFUSED);
    await_answer(f);
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
    await_answer(f);
    assert_true(f->refused);
    assert_true(f->conts > 1);
    assert_int_equal(f->d.phase, DESTINATION_FAILED);
    assert_true(record_says(f->record, mine, "failed"));
}

/* The source hears nothing before it is on record, and from then on QEMU is not asked once more. */
static void test_a_guest_is_returned_by_the_record_first(void **state)
{
    struct fixture *f = *state;
    char path[96];
    obstacle_path(f, sizeof path, path);
    f->obstacle = true;
    hand_over_to_qemu(f, FOR_GOOD);
    await(f, DESTINATION_RETURNING);
    unsigned conts = f->conts;
    assert_true(record_says(f->record, mine, "owner"));
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "QEMU has ended");
    destination_fail(&f->d, &err); /* which changes nothing about whose it is */
    assert_int_equal(f->d.phase, DESTINATION_RETURNING);
    assert_false(f->answered);
    assert_int_equal(rmdir(path), 0);
    await_answer(f);
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

/* Half of what it needs is open when it finds that it cannot go on: another hello must not open it once more. */
static void test_a_hello_that_cannot_be_followed_ends_it(void **state)
{
    struct fixture *f = *state;
    uint8_t key[SEAL_KEY_BYTES] = {7};
    qemu_listen(f);
    qemu_open(f);
    f->options.disks = senseless;
    Drover__EngineHello hello = DROVER__ENGINE_HELLO__INIT;
    hello.migration_id = anothers;
    hello.ram_bytes = f->options.ram_bytes;
    hello.page_bytes = PAGE_BYTES;
    hello.page_format = BATCH_FORMAT;
    hello.stripes = 1;
    hello.bulk_key = (ProtobufCBinaryData){sizeof key, key};
    hello.disks = senseless;
    call(f, DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base);
    assert_int_equal(f->code, ERR_INVALID);
    assert_int_equal(f->d.phase, DESTINATION_LISTENING); /* the one that it waits for may still come */
    assert_null(f->d.receiver);
    hello.migration_id = mine;
    hello.page_format = BATCH_FORMAT - 1;
    call(f, DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base);
    assert_int_equal(f->code, ERR_UNSUPPORTED);
    assert_int_equal(f->d.phase, DESTINATION_LISTENING);
    hello.page_format = BATCH_FORMAT;
    call(f, DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base);
    assert_int_equal(f->code, ERR_INVALID);
    assert_int_equal(f->d.phase, DESTINATION_FAILED);
}

static void say_farewell(struct fixture *f, char *migration)
{
    Drover__EngineFarewell farewell = DROVER__ENGINE_FAREWELL__INIT;
    uint8_t body[64];
    farewell.migration_id = migration;
    destination_on_farewell(&f->d, body, drover__engine_farewell__pack(&farewell, body));
}

/* Who is not heard by its source must be there when it asks again. */
static void test_only_its_own_source_lets_it_go(void **state)
{
    struct fixture *f = *state;
    f->d.phase = DESTINATION_DONE;
    say_farewell(f, anothers);
    say_farewell(f, none);
    destination_on_farewell(&f->d, (const uint8_t *)senseless, 1);
    assert_false(f->d.farewell);
    assert_false(f->d.finished);
    say_farewell(f, mine);
    assert_true(f->d.farewell);
    assert_true(f->d.finished);
}

/* The first word that there was, as a client of the control socket hears it later. -1: it is not this one. */
static json_int_t told(struct fixture *f, const char *event, const char *field)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char line[256] = "";
    strcpy(address.sun_path, f->control);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    control_event(f->d.side.control, "listening", NULL, true); /* so there is something to hear */
    f->late = false;
    loop_timer_start(f->bound, WAIT_MS, 0);
    while (!strchr(line, '\n') && !f->late) {
        uv_run(&f->d.side.loop, UV_RUN_ONCE);
        size_t len = strlen(line);
        ssize_t n = recv(fd, line + len, sizeof line - 1 - len, MSG_DONTWAIT);
        line[len + (n > 0 ? (size_t)n : 0)] = '\0';
    }
    loop_timer_stop(f->bound);
    close(fd);
    const char *at = strstr(line, event);
    json_t *message = at ? json_loads(line, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    json_int_t value = message ? json_integer_value(json_object_get(message, field)) : -1;
    json_decref(message);
    return value;
}

static void nobody_commands(void *user, const struct control_command *command)
{
    (void)user;
    (void)command;
}

static void test_it_tells_when_the_guest_was_heard(void **state)
{
    struct fixture *f = *state;
    struct destination *d = &f->d;
    struct err err;
    assert_int_equal(control_open(&d->side.loop, f->control, nobody_commands, f, &err, &d->side.control), 0);
    assert_false(destination_on_heard(d, 3000000)); /* it does not run here */
    d->taken_ns = 4000000;
    assert_false(destination_on_heard(d, 3999999));
    assert_true(destination_on_heard(d, 6000000));
    destination_on_resumed(d, 4500000); /* only now it is known since when it runs */
    assert_int_equal(told(f, "heard", "after_us"), 1501);
}

static void test_a_guest_without_a_word_is_not_told_of(void **state)
{
    struct fixture *f = *state;
    struct destination *d = &f->d;
    struct err err;
    assert_int_equal(control_open(&d->side.loop, f->control, nobody_commands, f, &err, &d->side.control), 0);
    d->taken_ns = 4000000;
    destination_on_resumed(d, 5000000);
    assert_true(destination_on_heard(d, 400000000));
    assert_int_equal(told(f, "heard", "after_us"), -1);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_hand_over_of_another_migration_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hand_over_that_comes_too_early_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_state_that_comes_too_late_costs_no_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_is_refused_at_first_is_started, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_is_refused_for_good_is_returned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_is_returned_by_the_record_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_was_told_to_run_is_not_returned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_may_have_run_is_not_returned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hello_that_cannot_be_followed_ends_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_its_own_source_lets_it_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_it_tells_when_the_guest_was_heard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_without_a_word_is_not_told_of, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
