/* Two relays before an NBD server that hangs, or is lost: its QEMU waits for nobody for ever. */
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

#include "migrate/relay_private.h"
#include "tests/unit/migrate/nbd_words.h"
#include "tests/unit/migrate/relay_pair.h"

#define WRITE   1
#define FLUSH   3
#define DISCARD 4
#define LONG_MS 600000u

static void expect(struct pair *p, int fd, const struct buf *words)
{
    uint8_t back[64];
    for (size_t got = 0; got < words->len;) {
        pair_run_until_readable(p, fd);
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

/* A client whose handshake is over. The server hangs from its next request on, and is waited for from then on as said.
 */
static int client_open(struct pair *p, uint32_t data_ms, uint32_t range_ms)
{
    struct buf words = {0};
    pair_open(p, FAR_NBD, true);
    int fd = pair_connect();
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
    pair_far_hangs(true);
    pair_patience(p, data_ms, range_ms);
    return fd;
}

static void client_close(struct pair *p, int fd)
{
    pair_far_hangs(false);
    close(fd);
    pair_close(p);
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
    int fd = client_open(&p, 600, LONG_MS);
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
    int fd = client_open(&p, 1000, LONG_MS);
    for (uint64_t cookie = 1; p.lost == 0; cookie++) {
        assert_true(cookie < 200);
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
    int fd = client_open(&p, 600, 600);
    request(fd, FLUSH, 1);
    for (uint64_t until = uv_hrtime() + 2000000000; uv_hrtime() < until;)
        uv_run(&p.loop, UV_RUN_ONCE);
    assert_int_equal(p.lost, 0);
    pair_far_hangs(false);
    expect_reply(&p, fd, 1);
    client_close(&p, fd);
}

/* Looks that have found it waiting for that, and nothing moving. */
static void run_until_still(struct pair *p, enum nbd_wait waits, uint32_t looks)
{
    const struct link *link = p->source->links;
    while (link->waits != waits || link->still < looks) {
        assert_int_equal(p->lost, 0);
        uv_run(&p->loop, UV_RUN_ONCE);
    }
}

static void a_discard_may_take_longer_but_not_for_ever(void **unused)
{
    (void)unused;
    struct pair p;
    int fd = client_open(&p, 200, 600);
    request(fd, DISCARD, 1);
    run_until_still(&p, NBD_RANGE, 12); /* 240 ms of looks: a write would be lost */
    run_until_lost(&p);
    client_close(&p, fd);
}

/* A write that comes when a discard has been waiting does not find its own time gone. */
static void a_write_behind_a_discard_has_its_own_time(void **unused)
{
    (void)unused;
    struct pair p;
    int fd = client_open(&p, 200, LONG_MS);
    request(fd, DISCARD, 1);
    run_until_still(&p, NBD_RANGE, 20);
    request(fd, WRITE, 2);
    run_until_still(&p, NBD_DATA, 1);
    assert_in_range(p.source->links->still, 1, 2);
    run_until_lost(&p);
    client_close(&p, fd);
}

static void a_lost_connection_is_answered_for(void **unused)
{
    (void)unused;
    struct pair p;
    int fd = client_open(&p, LONG_MS, LONG_MS);
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
    int fd = client_open(&p, 600, LONG_MS);
    request(fd, WRITE, 1);
    run_until_lost(&p);
    pair_run_until_readable(&p, fd);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
    client_close(&p, fd);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_hangs_is_answered_for),
        cmocka_unit_test(new_writes_hide_no_hang),
        cmocka_unit_test(a_flush_may_take_its_time),
        cmocka_unit_test(a_discard_may_take_longer_but_not_for_ever),
        cmocka_unit_test(a_write_behind_a_discard_has_its_own_time),
        cmocka_unit_test(a_lost_connection_is_answered_for),
        cmocka_unit_test(without_its_owner_nobody_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
