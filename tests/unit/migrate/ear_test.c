/* Who is heard at a guest's port: a tap in a network of this test's own, with the test in the guest's place. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/loop.h"
#include "migrate/announce.h"
#include "migrate/ear.h"

#define PORT      "guest0"
#define WAIT_MS   60000u
#define SLACK_NS  1000000u /* the kernel stamps with another clock, whose readings are converted */
#define TOO_EARLY 3u       /* frames of which this listener has not had enough */

struct fixture {
    uv_loop_t loop;
    struct loop_timer *bound;
    struct ear *ear;
    int tap, socket;
    uint64_t at_ns;
    unsigned heard, wanted;
    bool late;
};

static struct fixture fixture;

static bool on_frame(void *user, uint64_t at_ns)
{
    struct fixture *f = user;
    f->at_ns = at_ns;
    return ++f->heard >= f->wanted;
}

static void on_late(void *user)
{
    struct fixture *f = user;
    f->late = true;
}

/* A tap that is up; the guest's end is the descriptor. -1: this user may not have one. */
static int tap_make(void)
{
    struct ifreq port = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    strcpy(port.ifr_name, PORT);
    int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC), any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool made = tap >= 0 && ioctl(tap, TUNSETIFF, &port) == 0;
    port.ifr_flags = IFF_UP;
    made = made && any >= 0 && ioctl(any, SIOCSIFFLAGS, &port) == 0;
    close(any);
    if (made || tap < 0)
        return tap;
    close(tap);
    return -1;
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    struct err err;
    *f = (struct fixture){.wanted = 1, .tap = -1, .socket = -1};
    *state = f;
    if (unshare(CLONE_NEWNET) < 0 || (f->tap = tap_make()) < 0)
        return errno == EPERM || errno == EACCES || errno == ENOENT ? 0 : -1;
    uv_loop_init(&f->loop);
    f->bound = loop_timer_new(&f->loop, on_late, f);
    f->ear = ear_open(&f->loop, PORT "\nnobody0", on_frame, f); /* a port that is not there is left out */
    return announce_open(&err, &f->socket);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->tap < 0)
        return 0;
    ear_close(f->ear);
    loop_timer_free(f->bound);
    loop_close(&f->loop);
    close(f->tap);
    close(f->socket);
    return 0;
}

/* The guest sends a frame of this type. */
static void speak(const struct fixture *f, uint16_t type)
{
    struct {
        struct ether_header head;
        uint8_t rest[46];
    } frame = {.head = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x52, 0x54, 0, 0x12, 0x34, 0x56}, htons(type)}};
    assert_int_equal(write(f->tap, &frame, sizeof frame), sizeof frame);
}

static void wait_until_heard(struct fixture *f, unsigned times)
{
    loop_timer_start(f->bound, WAIT_MS, 0);
    while (f->heard < times && !f->late)
        uv_run(&f->loop, UV_RUN_ONCE);
    loop_timer_stop(f->bound);
    assert_int_equal(f->heard, times);
}

static void test_only_the_guest_is_heard(void **state)
{
    struct fixture *f = *state;
    struct err err;
    if (f->tap < 0)
        skip();
    static const char line[] = "52:54:00:12:34:56 10.77.0.12";
    struct neighbour n;
    assert_int_equal(neighbour_parse(line, strlen(line), &err, &n), 0);
    assert_int_equal(announce_address(f->socket, PORT, &n, &err), 0); /* ours: it goes out to the guest */
    uv_run(&f->loop, UV_RUN_NOWAIT);
    speak(f, ETHERTYPE_REVARP); /* QEMU's, which has loaded a guest */
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(f->heard, 0);
    uint64_t before_ns = clock_now_ns();
    speak(f, ETHERTYPE_IP);
    assert_int_equal(f->heard, 0); /* never from inside a call */
    wait_until_heard(f, 1);
    assert_true(f->at_ns + SLACK_NS >= before_ns);
    assert_true(f->at_ns <= clock_now_ns());
}

static void test_it_listens_until_it_was_enough(void **state)
{
    struct fixture *f = *state;
    if (f->tap < 0)
        skip();
    f->wanted = TOO_EARLY + 1;
    for (unsigned i = 1; i <= f->wanted; i++) {
        speak(f, ETHERTYPE_IP);
        wait_until_heard(f, i);
    }
    for (unsigned i = 0; i < 1000; i++) { /* a busy guest */
        speak(f, ETHERTYPE_IP);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(f->heard, f->wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_only_the_guest_is_heard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_it_listens_until_it_was_enough, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
