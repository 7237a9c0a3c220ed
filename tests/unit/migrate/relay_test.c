/* Two relays with an echo in QEMU's place, or an NBD server that hangs: everything comes back as it was sent, what is
 * held is bounded, nobody but the source gets as far as the echo, and QEMU waits for nobody for ever. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "migrate/relay.h"
#include "migrate/seal.h"
#include "tests/unit/migrate/nbd_words.h"
#include "tests/unit/migrate/stranger.h"

#define BYTES (24u << 20)

static char directory[64], near_path[96], far_path[96];
static atomic_uint accepted;
static atomic_bool over;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool slow;   /* under the lock */
static bool server; /* NBD's, instead of an echo; set before anybody connects */

static void set_slow(bool now)
{
    pthread_mutex_lock(&lock);
    slow = now;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_while_slow(void)
{
    pthread_mutex_lock(&lock);
    while (slow)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

static struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    return address;
}

static bool read_all(int fd, void *to, size_t len)
{
    return recv(fd, to, len, MSG_WAITALL) == (ssize_t)len;
}

/* As much of it as is needed here: one option, then writes of up to 64 KiB and what has no data. */
static void serve(int fd)
{
    struct buf words = {0};
    uint8_t head[28], data[65536];
    uint32_t len;
    uint64_t cookie;
    words_greeting(&words);
    bool on = write(fd, words.data, words.len) == (ssize_t)words.len && read_all(fd, data, 24);
    buf_clear(&words);
    words_option_reply(&words, 1);
    on = on && write(fd, words.data, words.len) == (ssize_t)words.len;
    while (on && read_all(fd, head, sizeof head)) {
        memcpy(&len, head + 24, sizeof len);
        if (head[7] == 1 && !read_all(fd, data, be32toh(len)))
            break;
        wait_while_slow();
        memcpy(&cookie, head + 8, sizeof cookie);
        buf_clear(&words);
        words_reply(&words, WORDS_SIMPLE, be64toh(cookie), 0);
        on = write(fd, words.data, words.len) == (ssize_t)words.len;
    }
    buf_free(&words);
}

static void *echo_one(void *user)
{
    int fd = (int)(intptr_t)user;
    char data[65536];
    ssize_t n;
    if (server)
        serve(fd);
    while ((n = read(fd, data, sizeof data)) > 0) {
        wait_while_slow();
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(fd, data + done, (size_t)(n - done))) <= 0)
                break;
    }
    close(fd);
    return NULL;
}

static void *echo(void *user)
{
    int listener = (int)(intptr_t)user, fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        pthread_t thread;
        accepted++;
        assert_int_equal(pthread_create(&thread, NULL, echo_one, (void *)(intptr_t)fd), 0);
        pthread_detach(thread);
    }
    return NULL;
}

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

struct pair {
    uv_loop_t loop;
    bool alone; /* when one is lost, QEMU is answered all the same */
    unsigned lost;
    struct err err; /* why */
    struct relay *source, *destination;
    int listener;
    pthread_t echo;
};

static void on_lost(void *user, const struct err *err)
{
    struct pair *p = user;
    p->err = *err;
    p->lost++;
    if (p->alone)
        relay_answer_alone(p->source);
}

static void pair_open(struct pair *p, bool same_key, uint32_t data_ms)
{
    const struct relay_watch watch = {.data_ms = data_ms, .range_ms = 2 * data_ms, .on_lost = on_lost, .user = p};
    p->alone = false;
    p->lost = 0;
    uint8_t key[SEAL_KEY_BYTES], other[SEAL_KEY_BYTES];
    struct err err;
    seal_make_key(key);
    seal_make_key(other);
    strcpy(directory, "/tmp/drover-relay-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(near_path, sizeof near_path, "%s/near", directory);
    snprintf(far_path, sizeof far_path, "%s/far", directory);
    accepted = 0;
    over = false;
    set_slow(false);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = unix_address(far_path);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(p->listener, 8), 0);
    assert_int_equal(pthread_create(&p->echo, NULL, echo, (void *)(intptr_t)p->listener), 0);
    assert_int_equal(uv_loop_init(&p->loop), 0);
    assert_int_equal(
        relay_open_destination(&p->loop, "127.0.0.1", "127.0.0.1", far_path, key, &err, &p->destination), 0);
    assert_int_equal(relay_open_source(&p->loop, near_path, relay_address(p->destination), same_key ? key : other,
                         &watch, &err, &p->source),
        0);
}

static void pair_close(struct pair *p)
{
    relay_close(p->source);
    relay_close(p->destination);
    loop_close(&p->loop);
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->echo, NULL);
    close(p->listener);
    unlink(far_path);
    assert_int_equal(rmdir(directory), 0);
}

static int connect_near(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = unix_address(near_path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void everything_comes_back(void **unused)
{
    (void)unused;
    struct pair p;
    pthread_t sender, receiver;
    pair_open(&p, true, 60000);
    struct client c = {.fd = connect_near()};
    pthread_create(&sender, NULL, send_all, &c);
    pthread_create(&receiver, NULL, receive_all, &c);
    while (!over)
        uv_run(&p.loop, UV_RUN_ONCE);
    pthread_join(sender, NULL);
    pthread_join(receiver, NULL);
    close(c.fd);
    assert_int_equal(c.received, BYTES);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(accepted, 1);
    assert_true(relay_wire_bytes(p.source) >= 2ull * BYTES);
    pair_close(&p);
}

/* A receiver that takes nothing holds up the sender, and that after little: sockets and what the relays hold. */
static void what_is_held_is_bounded(void **unused)
{
    (void)unused;
    struct pair p;
    pthread_t sender;
    pair_open(&p, true, 60000);
    set_slow(true);
    struct client c = {.fd = connect_near()};
    pthread_create(&sender, NULL, send_all, &c);
    uint64_t before = 1;
    for (int still = 0; still < 20; still = before == c.sent ? still + 1 : 0) {
        before = c.sent;
        for (int i = 0; i < 50; i++)
            uv_run(&p.loop, UV_RUN_NOWAIT);
        usleep(10000);
    }
    assert_true(c.sent < BYTES && c.sent > 0);
    set_slow(false);
    shutdown(c.fd, SHUT_RDWR);
    pthread_join(sender, NULL);
    close(c.fd);
    for (int i = 0; i < 50; i++)
        uv_run(&p.loop, UV_RUN_NOWAIT);
    pair_close(&p);
}

static void readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    *(bool *)poll->data = true;
}

/* Runs the relays until something can be read from `fd`, its end included. */
static void run_until_readable(struct pair *p, int fd)
{
    uv_poll_t poll;
    bool ready = false;
    assert_int_equal(uv_poll_init(&p->loop, &poll, fd), 0);
    poll.data = &ready;
    assert_int_equal(uv_poll_start(&poll, UV_READABLE | UV_DISCONNECT, readable), 0);
    while (!ready)
        uv_run(&p->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&poll, NULL);
    uv_run(&p->loop, UV_RUN_NOWAIT); /* which closes it */
}

/* Speaks to the destination's port; true: it was hung up on. */
static bool stranger_is_cut(struct pair *p, const void *words, size_t len)
{
    char byte;
    int fd = stranger_connect(relay_address(p->destination), "127.0.0.1");
    assert_int_equal(send(fd, words, len, MSG_NOSIGNAL), len);
    run_until_readable(p, fd);
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
    close(fd);
    return n == 0;
}

static void source_gets_through(struct pair *p)
{
    char back[5];
    int fd = connect_near();
    assert_int_equal(write(fd, "hello", 5), 5);
    run_until_readable(p, fd); /* so few bytes come as one message */
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
    pair_open(&p, true, 60000);
    for (size_t i = 0; i <= RELAY_LINKS_MAX; i++) {
        fds[i] = stranger_connect(relay_address(p.destination), "127.0.0.2");
        uv_run(&p.loop, UV_RUN_NOWAIT);
    }
    source_gets_through(&p);
    for (size_t i = 0; i <= RELAY_LINKS_MAX; i++) {
        run_until_readable(&p, fds[i]);
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
    pair_open(&p, true, 60000);
    assert_true(stranger_is_cut(&p, forged, sizeof forged));
    assert_true(stranger_is_cut(&p, high, sizeof high));
    assert_true(stranger_is_cut(&p, huge, sizeof huge));
    assert_true(stranger_is_cut(&p, longer, sizeof longer)); /* the first message is empty */
    assert_int_equal(accepted, 0);
    /* And they have taken no number away. */
    source_gets_through(&p);
    pair_close(&p);
}

static void another_key_is_another_source(void **unused)
{
    (void)unused;
    struct pair p;
    char byte;
    pair_open(&p, false, 60000);
    int fd = connect_near();
    run_until_readable(&p, fd);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
    assert_int_equal(accepted, 0);
    assert_int_equal(p.lost, 1);
    close(fd);
    pair_close(&p);
}

/* --- an NBD server that hangs --- */

#define WRITE 1
#define FLUSH 3

static void expect(struct pair *p, int fd, const struct buf *words)
{
    uint8_t back[64];
    for (size_t got = 0; got < words->len;) {
        run_until_readable(p, fd);
        ssize_t n = recv(fd, back + got, words->len - got, MSG_DONTWAIT);
        assert_true(n > 0);
        got += (size_t)n;
    }
    assert_memory_equal(back, words->data, words->len);
}

static void expect_reply(struct pair *p, int fd, uint64_t cookie)
{
    struct buf words = {0};
    words_reply(&words, WORDS_SIMPLE, cookie, 0);
    expect(p, fd, &words);
    buf_free(&words);
}

static void request(int fd, uint16_t type, uint64_t cookie)
{
    struct buf words = {0};
    words_request(&words, false, type, cookie, 4096);
    assert_int_equal(write(fd, words.data, words.len), words.len);
    buf_free(&words);
}

/* A client whose handshake is over. The server hangs from its next request on. */
static int client_open(struct pair *p, uint32_t data_ms)
{
    struct buf words = {0};
    server = true;
    pair_open(p, true, data_ms);
    int fd = connect_near();
    words_greeting(&words);
    expect(p, fd, &words);
    buf_clear(&words);
    words_option(&words);
    assert_int_equal(write(fd, words.data, words.len), words.len);
    buf_clear(&words);
    words_option_reply(&words, 1);
    expect(p, fd, &words);
    buf_free(&words);
    request(fd, WRITE, 100);
    expect_reply(p, fd, 100);
    set_slow(true);
    return fd;
}

static void client_close(struct pair *p, int fd)
{
    set_slow(false);
    close(fd);
    pair_close(p);
    server = false;
}

static void run_until_lost(struct pair *p)
{
    while (p->lost == 0)
        uv_run(&p->loop, UV_RUN_ONCE);
    assert_int_equal(p->err.code, ERR_UNAVAILABLE);
}

/* What it had been asked, and what it is asked from then on. */
static void a_server_that_hangs_is_answered_for(void **unused)
{
    (void)unused;
    struct pair p;
    struct buf half = {0};
    int fd = client_open(&p, 200);
    p.alone = true;
    request(fd, WRITE, 1);
    request(fd, FLUSH, 2);
    words_request(&half, false, WRITE, 3, 4096);
    assert_int_equal(write(fd, half.data, 1000), 1000);
    run_until_lost(&p);
    expect_reply(&p, fd, 1);
    expect_reply(&p, fd, 2);
    assert_int_equal(write(fd, half.data + 1000, half.len - 1000), half.len - 1000);
    expect_reply(&p, fd, 3);
    for (uint64_t cookie = 4; cookie < 1000; cookie++) { /* far more than is held for a destination */
        request(fd, WRITE, cookie);
        expect_reply(&p, fd, cookie);
    }
    assert_int_equal(p.lost, 1);
    buf_free(&half);
    client_close(&p, fd);
}

/* New writes that it takes tell nothing of those it has. */
static void new_writes_hide_no_hang(void **unused)
{
    (void)unused;
    struct pair p;
    int fd = client_open(&p, 1000);
    for (uint64_t cookie = 1; p.lost == 0; cookie++) {
        assert_true(cookie < 40);
        request(fd, WRITE, cookie);
        for (uint64_t until = uv_hrtime() + 300000000; uv_hrtime() < until && p.lost == 0;)
            uv_run(&p.loop, UV_RUN_ONCE);
    }
    client_close(&p, fd);
}

static void a_flush_may_take_its_time(void **unused)
{
    (void)unused;
    struct pair p;
    int fd = client_open(&p, 100);
    request(fd, FLUSH, 1);
    for (uint64_t until = uv_hrtime() + 500000000; uv_hrtime() < until;)
        uv_run(&p.loop, UV_RUN_ONCE);
    assert_int_equal(p.lost, 0);
    set_slow(false);
    expect_reply(&p, fd, 1);
    client_close(&p, fd);
}

static void a_lost_connection_is_answered_for(void **unused)
{
    (void)unused;
    struct pair p;
    int fd = client_open(&p, 60000);
    p.alone = true;
    request(fd, WRITE, 1);
    for (int i = 0; i < 5; i++)
        uv_run(&p.loop, UV_RUN_NOWAIT);
    relay_close(p.destination);
    p.destination = NULL;
    run_until_lost(&p);
    expect_reply(&p, fd, 1);
    request(fd, WRITE, 2);
    expect_reply(&p, fd, 2);
    client_close(&p, fd);
}

/* Nobody but the owner may say that what was written need not be anywhere. */
static void without_its_owner_nobody_is_answered(void **unused)
{
    (void)unused;
    struct pair p;
    char byte;
    int fd = client_open(&p, 200);
    request(fd, WRITE, 1);
    run_until_lost(&p);
    run_until_readable(&p, fd);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
    client_close(&p, fd);
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
        cmocka_unit_test(a_server_that_hangs_is_answered_for),
        cmocka_unit_test(new_writes_hide_no_hang),
        cmocka_unit_test(a_flush_may_take_its_time),
        cmocka_unit_test(a_lost_connection_is_answered_for),
        cmocka_unit_test(without_its_owner_nobody_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
