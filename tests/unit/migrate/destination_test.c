/* What a destination makes of a source that errs, or is another one's, and what it tells of the guest it has taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "migrate/batch.h"
#include "migrate/record.h"
#include "migrate/seal.h"
#include "tests/unit/migrate/destination_fixture.h"

static char senseless[] = "x";

static void hand_over(struct fixture *f, char *migration)
{
    Drover__EngineHandOver message = DROVER__ENGINE_HAND_OVER__INIT;
    message.migration_id = migration;
    fixture_call(f, DROVER__ENGINE_METHOD__ENGINE_HAND_OVER, &message.base);
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

/* Half of what it needs is open when it finds that it cannot go on: another hello must not open it once more. */
static void test_a_hello_that_cannot_be_followed_ends_it(void **state)
{
    struct fixture *f = *state;
    uint8_t key[SEAL_KEY_BYTES] = {7};
    fixture_qemu_listen(f);
    fixture_qemu_open(f);
    f->options.disks = senseless;
    Drover__EngineHello hello = DROVER__ENGINE_HELLO__INIT;
    hello.migration_id = anothers;
    hello.ram_bytes = f->options.ram_bytes;
    hello.page_bytes = PAGE_BYTES;
    hello.page_format = BATCH_FORMAT;
    hello.stripes = 1;
    hello.bulk_key = (ProtobufCBinaryData){sizeof key, key};
    hello.disks = senseless;
    fixture_call(f, DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base);
    assert_int_equal(f->code, ERR_INVALID);
    assert_int_equal(f->d.phase, DESTINATION_LISTENING); /* the one that it waits for may still come */
    assert_null(f->d.receiver);
    hello.migration_id = mine;
    hello.page_format = BATCH_FORMAT - 1;
    fixture_call(f, DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base);
    assert_int_equal(f->code, ERR_UNSUPPORTED);
    assert_int_equal(f->d.phase, DESTINATION_LISTENING);
    hello.page_format = BATCH_FORMAT;
    fixture_call(f, DROVER__ENGINE_METHOD__ENGINE_HELLO, &hello.base);
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
        cmocka_unit_test_setup_teardown(
            test_a_hand_over_of_another_migration_changes_nothing, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            test_a_hand_over_that_comes_too_early_is_refused, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_state_that_comes_too_late_costs_no_guest, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_hello_that_cannot_be_followed_ends_it, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_only_its_own_source_lets_it_go, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_it_tells_when_the_guest_was_heard, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_without_a_word_is_not_told_of, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
