#include "tests/unit/migrate/destination_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "migrate/record.h"
#include "tests/unit/migrate/memory_file.h"

#define PAGES 16u

static struct fixture fixture;
char mine[] = "11111111-1111-1111-1111-111111111111", anothers[] = "22222222-2222-2222-2222-222222222222";
char none[] = "";

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

void fixture_ask(struct fixture *f, uint32_t method, const ProtobufCMessage *message)
{
    f->answered = f->late = false;
    wire_call(wire_client_peer(f->client), method, message, WAIT_MS, on_answer, f);
    loop_timer_start(f->bound, WAIT_MS, 0);
}

void fixture_call(struct fixture *f, uint32_t method, const ProtobufCMessage *message)
{
    fixture_ask(f, method, message);
    while (!f->answered && !f->late)
        uv_run(&f->d.side.loop, UV_RUN_ONCE);
    loop_timer_stop(f->bound);
    assert_true(f->answered);
}

int fixture_setup(void **state)
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

int fixture_teardown(void **state)
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
    record_unprepare(f->record);
    unlink(f->qmp);
    rmdir(f->directory);
    return 0;
}

void fixture_qemu_listen(struct fixture *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, f->qmp);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(f->listener, 1), 0);
}

void fixture_qemu_open(struct fixture *f)
{
    struct err err;
    const struct guest_events events = {.on_gone = on_gone, .on_resumed = destination_on_resumed, .user = &f->d};
    assert_int_equal(guest_open(&f->d.side.loop, f->qmp, &events, &err, &f->d.side.guest), 0);
}
