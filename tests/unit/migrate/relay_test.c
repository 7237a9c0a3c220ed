/* Two relays with an echo in QEMU's place: everything comes back as it was sent, what is held is bounded, and nobody
 * but the source gets as far as the echo. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrate/seal.h"
#include "tests/lib/until.h"
#include "tests/unit/migrate/relay_pair.h"
#include "tests/unit/migrate/stranger.h"

#define BYTES (24u << 20)

static atomic_bool over;

struct client {
    int fd;
    uint64_t sent, received, wrong;
};

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 2654435761u >> 13);
}

static void *send_all(void *user)
{
    struct client *c = user;
    uint8_t data[40000];
    while (c->sent < BYTES) {
        size_t n = BYTES - c->sent < sizeof data ? BYTES - c->sent : sizeof data;
        for (size_t i = 0; i < n; i++)
            data[i] = byte_at(c->sent + i);
        ssize_t w = write(c->fd, data, n);
        if (w <= 0)
            break;
        c->sent += (uint64_t)w;
    }
    return NULL;
}

static void *receive_all(void *user)
{
    struct client *c = user;
    uint8_t data[65536];
    ssize_t n;
    while (c->received < BYTES && (n = read(c->fd, data, sizeof data)) > 0)
        for (ssize_t i = 0; i < n; i++)
            c->wrong += data[i] != byte_at(c->received++);
    over = true;
    shutdown(c->fd, SHUT_RDWR); /* wakes the loop */
    return NULL;
}

static void everything_comes_back(void **unused)
{
    (void)unused;
    struct pair p;
    pthread_t sender, receiver;
    over = false;
    pair_open(&p, FAR_ECHO, true);
    struct client c = {.fd = pair_connect()};
    pthread_create(&sender, NULL, send_all, &c);
    pthread_create(&receiver, NULL, receive_all, &c);
    while (!over)
        uv_run(&p.loop, UV_RUN_ONCE);
    pthread_join(sender, NULL);
    pthread_join(receiver, NULL);
    close(c.fd);
    assert_int_equal(c.received, BYTES);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(pair_accepted, 1);
    assert_true(relay_wire_bytes(p.source) >= 2ull * BYTES);
    pair_close(&p);
}

struct standstill {
    uint64_t sent;
    unsigned looks; /* in a row at which it was the same */
};

/* Gives the relays their turn; true: the sender, once it has begun, got nowhere for some 200 ms. */
static bool stands_still(struct pair *p, const struct client *c, struct standstill *s)
{
    for (int i = 0; i < 50; i++)
        uv_run(&p->loop, UV_RUN_NOWAIT);
    s->looks = c->sent > 0 && c->sent == s->sent ? s->looks + 1 : 0;
    s->sent = c->sent;
    return s->looks == 200;
}

/* A receiver that takes nothing holds up the sender, and that after little: sockets and what the relays hold. */
static void what_is_held_is_bounded(void **unused)
{
    (void)unused;
    struct pair p;
    pthread_t sender;
    pair_open(&p, FAR_ECHO, true);
    pair_far_hangs(true);
    struct client c = {.fd = pair_connect()};
    pthread_create(&sender, NULL, send_all, &c);
    struct standstill still = {0};
    UNTIL(stands_still(&p, &c, &still));
    assert_true(c.sent < BYTES);
    pair_far_hangs(false);
    shutdown(c.fd, SHUT_RDWR);
    pthread_join(sender, NULL);
    close(c.fd);
    for (int i = 0; i < 50; i++)
        uv_run(&p.loop, UV_RUN_NOWAIT);
    pair_close(&p);
}

/* Speaks to the destination's port; true: it was hung up on. */
static bool stranger_is_cut(struct pair *p, const void *words, size_t len)
{
    char byte;
    int fd = stranger_connect(relay_address(p->destination), "127.0.0.1");
    assert_int_equal(send(fd, words, len, MSG_NOSIGNAL), len);
    pair_run_until_readable(p, fd);
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
    close(fd);
    return n == 0;
}

static void source_gets_through(struct pair *p)
{
    char back[5];
    int fd = pair_connect();
    assert_int_equal(write(fd, "hello", 5), 5);
    pair_run_until_readable(p, fd); /* so few bytes come as one message */
    assert_int_equal(recv(fd, back, 5, MSG_DONTWAIT), 5);
    assert_memory_equal(back, "hello", 5);
    close(fd);
}

/* Each may wait for a while before it says whose it is, and there is room for so many. */
static void other_hosts_take_no_room(void **unused)
{
    (void)unused;
    struct pair p;
    int fds[RELAY_LINKS_MAX + 1];
    char byte;
    pair_open(&p, FAR_ECHO, true);
    for (size_t i = 0; i <= RELAY_LINKS_MAX; i++) {
        fds[i] = stranger_connect(relay_address(p.destination), "127.0.0.2");
        uv_run(&p.loop, UV_RUN_NOWAIT);
    }
    source_gets_through(&p);
    for (size_t i = 0; i <= RELAY_LINKS_MAX; i++) {
        pair_run_until_readable(&p, fds[i]);
        assert_int_equal(recv(fds[i], &byte, 1, MSG_DONTWAIT), 0);
        close(fds[i]);
    }
    pair_close(&p);
}

static void strangers_get_nowhere(void **unused)
{
    (void)unused;
    struct pair p;
    uint8_t forged[4 + 4 + SEAL_OVERHEAD] = {0, 0, 0, 0, SEAL_OVERHEAD};
    static const uint8_t high[8] = {0xff, 0xff, 0, 0, 1, 2, 3, 4}, huge[8] = {1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f};
    static const uint8_t longer[8] = {1, 0, 0, 0, SEAL_OVERHEAD + 1, 0, 0, 0};
    pair_open(&p, FAR_ECHO, true);
    assert_true(stranger_is_cut(&p, forged, sizeof forged));
    assert_true(stranger_is_cut(&p, high, sizeof high));
    assert_true(stranger_is_cut(&p, huge, sizeof huge));
    assert_true(stranger_is_cut(&p, longer, sizeof longer)); /* the first message is empty */
    assert_int_equal(pair_accepted, 0);
    /* And they have taken no number away. */
    source_gets_through(&p);
    pair_close(&p);
}

static void another_key_is_another_source(void **unused)
{
    (void)unused;
    struct pair p;
    char byte;
    pair_open(&p, FAR_ECHO, false);
    int fd = pair_connect();
    pair_run_until_readable(&p, fd);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
    assert_int_equal(pair_accepted, 0);
    assert_int_equal(p.lost, 1);
    close(fd);
    pair_close(&p);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back),
        cmocka_unit_test(what_is_held_is_bounded),
        cmocka_unit_test(other_hosts_take_no_room),
        cmocka_unit_test(strangers_get_nowhere),
        cmocka_unit_test(another_key_is_another_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
