/* The destination's end of QEMU's state: what is written arrives, and a QEMU that takes nothing costs bounded memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "migrate/statepipe.h"

struct fixture {
    uv_loop_t loop;
    struct statepipe *pipe;
    int listener, qemu;
    char path[64];
    unsigned failures;
};

static struct fixture fixture;

static void on_failed(void *user, const struct err *err)
{
    struct fixture *f = user;
    assert_int_equal(err->code, ERR_UNAVAILABLE);
    f->failures++;
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct statepipe_options options = {.on_failed = on_failed, .user = f};
    struct err err;
    *f = (struct fixture){.qemu = -1};
    snprintf(f->path, sizeof f->path, "/tmp/drover-state-%d", (int)getpid());
    unlink(f->path);
    strcpy(address.sun_path, f->path);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uv_loop_init(&f->loop);
    if (f->listener < 0 || bind(f->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(f->listener, 1) < 0 || statepipe_connect(&f->loop, f->path, &options, &err, &f->pipe) < 0)
        return -1;
    f->qemu = accept(f->listener, NULL, NULL);
    *state = f;
    return f->qemu < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    statepipe_close(f->pipe);
    loop_close(&f->loop);
    close(f->qemu);
    close(f->listener);
    unlink(f->path);
    return 0;
}

static void test_what_is_written_arrives(void **state)
{
    struct fixture *f = *state;
    static uint8_t piece[STATEPIPE_CHUNK], got[STATEPIPE_CHUNK];
    size_t total = 16 * sizeof piece, read_bytes = 0;
    memset(piece, 9, sizeof piece);
    for (size_t at = 0; at < total; at += sizeof piece)
        statepipe_write(f->pipe, piece, sizeof piece);
    while (read_bytes < total) {
        uv_run(&f->loop, UV_RUN_NOWAIT);
        ssize_t n = recv(f->qemu, got, sizeof got, MSG_DONTWAIT);
        if (n <= 0)
            continue;
        assert_memory_equal(got, piece, (size_t)n);
        read_bytes += (size_t)n;
    }
    assert_int_equal(f->failures, 0);
}

static void test_what_is_not_taken_is_bounded(void **state)
{
    struct fixture *f = *state;
    static uint8_t piece[STATEPIPE_CHUNK];
    for (size_t at = 0; at < STATEPIPE_HELD_MAX; at += sizeof piece)
        statepipe_write(f->pipe, piece, sizeof piece);
    assert_int_equal(f->failures, 0);
    for (int i = 0; i < 8; i++) /* the socket itself holds less */
        statepipe_write(f->pipe, piece, sizeof piece);
    assert_int_not_equal(f->failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_written_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_taken_is_bounded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
