/* QEMU's device state. The destination's end: what is written arrives, and a QEMU that takes nothing costs bounded
 * memory. The source's end: a writer in another process, held, let go on, and its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"
#include "migrate/statepipe.h"

struct fixture {
    uv_loop_t loop;
    struct statepipe *pipe;
    int listener, qemu;
    char directory[32], path[64];
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
    strcpy(f->directory, "/tmp/drover-state-XXXXXX");
    if (!mkdtemp(f->directory))
        return -1;
    snprintf(f->path, sizeof f->path, "%s/socket", f->directory);
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
    rmdir(f->directory);
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

/* ---- the source's end ---- */

#define STREAM_BYTES (4u << 20) /* half of it is more than a socket holds, narrow or wide */
#define PATIENCE_MS  60000u

/* What the writer's socket told of its own buffer. */
struct buffers {
    int first, least, last;
};

struct reader {
    uv_loop_t loop;
    struct buffers *buffers; /* shared with the writer */
    struct statepipe *pipe;
    char directory[64], path[80];
    pid_t writer;
    size_t bytes, pieces;
    bool holding; /* after each piece, once */
    bool over, failed;
};

static void on_data(void *user, const uint8_t *data, size_t len)
{
    struct reader *r = user;
    for (size_t i = 0; i < len; i++)
        assert_int_equal(data[i], (uint8_t)((r->bytes + i) * 7));
    r->bytes += len;
    r->pieces += len > 0;
    r->over = r->over || len == 0;
    if (r->holding && len > 0)
        statepipe_hold(r->pipe);
}

static void on_reader_failed(void *user, const struct err *err)
{
    struct reader *r = user;
    (void)err;
    r->failed = true;
}

static int buffer_of(int fd)
{
    int bytes;
    socklen_t len = sizeof bytes;
    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &len) < 0)
        _exit(3);
    return bytes;
}

/* In a process of its own: waits for a byte on `go`, connects, writes all of it, ends. */
static void writer_run(const char *path, int go, struct buffers *buffers)
{
    uint8_t data[8192];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    buffers->first = buffers->least = buffer_of(fd);
    if (read(go, data, 1) != 1 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        _exit(1);
    for (size_t at = 0; at < STREAM_BYTES;) {
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (uint8_t)((at + i) * 7);
        size_t left = STREAM_BYTES - at;
        ssize_t n = write(fd, data, left < sizeof data ? left : sizeof data);
        if (n <= 0)
            _exit(2);
        at += (size_t)n;
        buffers->last = buffer_of(fd);
        buffers->least = buffers->last < buffers->least ? buffers->last : buffers->least;
    }
    _exit(0);
}

static void reader_open(struct reader *r)
{
    int go[2];
    struct err err;
    snprintf(r->directory, sizeof r->directory, "/tmp/statepipe-XXXXXX");
    assert_non_null(mkdtemp(r->directory));
    snprintf(r->path, sizeof r->path, "%s/state", r->directory);
    assert_int_equal(pipe(go), 0);
    r->buffers = mmap(NULL, sizeof *r->buffers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(r->buffers, MAP_FAILED);
    r->writer = fork();
    if (r->writer == 0)
        writer_run(r->path, go[0], r->buffers);
    assert_true(r->writer > 0);
    assert_int_equal(uv_loop_init(&r->loop), 0);
    const struct statepipe_options options = {
        .on_data = on_data, .narrow_pid = r->writer, .on_failed = on_reader_failed, .user = r};
    assert_int_equal(statepipe_listen(&r->loop, r->path, &options, &err, &r->pipe), 0);
    assert_int_equal(write(go[1], "g", 1), 1);
    close(go[0]);
    close(go[1]);
}

static void writer_ended(struct reader *r)
{
    int status;
    assert_int_equal(waitpid(r->writer, &status, 0), r->writer);
    assert_int_equal(status, 0);
}

static void reader_close(struct reader *r)
{
    statepipe_close(r->pipe);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&r->loop), 0);
    assert_int_equal(munmap(r->buffers, sizeof *r->buffers), 0);
    assert_int_equal(rmdir(r->directory), 0);
}

/* Until the stream is over, or another piece has come while it is held. */
static void reader_run(struct reader *r)
{
    uint64_t by_ms = clock_now_ms() + PATIENCE_MS;
    size_t pieces = r->pieces;
    while (!r->over && !r->failed && !(r->holding && r->pieces > pieces) && clock_now_ms() < by_ms)
        uv_run(&r->loop, UV_RUN_ONCE);
    assert_false(r->failed);
    assert_true(r->over || r->pieces > pieces); /* else it ran out of patience */
}

static void test_held_piece_by_piece_all_of_it_comes(void **state)
{
    struct reader r = {.holding = true};
    (void)state;
    reader_open(&r);
    statepipe_flow(r.pipe);
    while (r.bytes < STREAM_BYTES / 2) {
        reader_run(&r);
        statepipe_flow(r.pipe);
    }
    r.holding = false;
    statepipe_widen(r.pipe);
    reader_run(&r);
    assert_true(r.over);
    assert_int_equal(r.bytes, STREAM_BYTES);
    writer_ended(&r);
    assert_true(r.buffers->least < r.buffers->first); /* it was narrow */
    assert_int_equal(r.buffers->last, r.buffers->first);
    reader_close(&r);
}

/* As when the guest is heard to have stopped before its QEMU has been accepted. */
static void test_widened_before_it_connects_the_stream_ends(void **state)
{
    struct reader r = {0};
    (void)state;
    reader_open(&r);
    statepipe_widen(r.pipe);
    statepipe_flow(r.pipe);
    reader_run(&r);
    assert_true(r.over);
    assert_int_equal(r.bytes, STREAM_BYTES);
    writer_ended(&r);
    assert_int_equal(r.buffers->least, r.buffers->first);
    reader_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_written_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_taken_is_bounded, setup, teardown),
        cmocka_unit_test(test_held_piece_by_piece_all_of_it_comes),
        cmocka_unit_test(test_widened_before_it_connects_the_stream_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
