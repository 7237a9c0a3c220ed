#include "tests/unit/migrate/relay_pair.h"

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
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "migrate/relay_private.h"
#include "migrate/seal.h"
#include "tests/unit/migrate/nbd_words.h"

#define PATIENT_MS 600000u

atomic_uint pair_accepted;
static char directory[64], near_path[96], far_path[96];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool slow;         /* under the lock */
static enum pair_far far; /* set before anybody connects */

void pair_far_hangs(bool now)
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
    if (far == FAR_NBD)
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
        pair_accepted++;
        assert_int_equal(pthread_create(&thread, NULL, echo_one, (void *)(intptr_t)fd), 0);
        pthread_detach(thread);
    }
    return NULL;
}

static void on_lost(void *user, const struct err *err)
{
    struct pair *p = user;
    p->err = *err;
    p->lost++;
    if (p->alone)
        relay_answer_alone(p->source);
}

void pair_open(struct pair *p, enum pair_far who, bool same_key)
{
    const struct relay_watch watch = {.data_ms = PATIENT_MS, .range_ms = PATIENT_MS, .on_lost = on_lost, .user = p};
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
    pair_accepted = 0;
    far = who;
    pair_far_hangs(false);
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

void pair_patience(struct pair *p, uint32_t data_ms, uint32_t range_ms)
{
    p->source->watch.data_ms = data_ms;
    p->source->watch.range_ms = range_ms;
    loop_timer_free(p->source->looking);
    relay_watch_start(p->source);
}

void pair_close(struct pair *p)
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

int pair_connect(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = unix_address(near_path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    *(bool *)poll->data = true;
}

void pair_run_until_readable(struct pair *p, int fd)
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
