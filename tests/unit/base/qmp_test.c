/* The client against a QEMU of cardboard: a listening socket whose connection is driven by hand, line by line. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/jsonline.h"
#include "base/qmp.h"
#include "tests/lib/until.h"

#define GREETING                                                                                                       \
    "{\"QMP\":{\"version\":{\"qemu\":{\"major\":10,\"minor\":0,\"micro\":2}},\"capabilities\":[\"oob\"]}}\n"

struct fixture {
    uv_loop_t loop;
    char folder[64];
    char path[96];
    struct jsonline_server *server;
    int peer;         /* the raw connection, as QEMU sees it; -1 before it is accepted */
    struct buf asked; /* what the client has sent */
    struct qmp *qmp;
    struct buf journal; /* what the callbacks were told, a line each */
    unsigned reissues;
    bool close_inside;
    uint64_t event_ns; /* of the last one */
};

static void peer_accepted(void *user, int fd)
{
    ((struct fixture *)user)->peer = fd;
}

static void on_event(void *user, const char *event, json_t *data, uint64_t at_ns)
{
    struct fixture *f = user;
    f->event_ns = at_ns;
    char *text = json_dumps(data, JSON_COMPACT);
    buf_printf(&f->journal, "event %s %s\n", event, text);
    free(text);
    if (f->close_inside) {
        qmp_close(f->qmp);
        f->qmp = NULL;
    }
}

static void on_closed(void *user, const struct err *err)
{
    struct fixture *f = user;
    buf_printf(&f->journal, "closed %s\n", err_name(err->code));
    if (f->close_inside) {
        qmp_close(f->qmp);
        f->qmp = NULL;
    }
}

static void on_reply(void *user, const struct err *err, json_t *result)
{
    struct fixture *f = user;
    if (err) {
        buf_printf(&f->journal, "failed %s: %s\n", err_name(err->code), err->message);
        return;
    }
    char *text = json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY);
    buf_printf(&f->journal, "reply %s\n", text);
    free(text);
}

static void reply_then_close(void *user, const struct err *err, json_t *result)
{
    struct fixture *f = user;
    on_reply(user, err, result);
    qmp_close(f->qmp);
    f->qmp = NULL;
}

/* A caller that tries again whenever a command fails. */
static void reply_then_retry(void *user, const struct err *err, json_t *result)
{
    struct fixture *f = user;
    (void)result;
    buf_printf(&f->journal, "failed %s\n", err ? err_name(err->code) : "not");
    if (f->reissues-- > 0)
        qmp_command(f->qmp, "query-status", NULL, 1000, reply_then_retry, f);
}

static bool peer_is_there(void *user)
{
    return ((struct fixture *)user)->peer >= 0;
}

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err;
    uv_loop_init(&f->loop);
    f->peer = -1;
    strcpy(f->folder, "/tmp/drover-qmp-test-XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->path, sizeof f->path, "%s/qmp", f->folder);
    if (jsonline_listen(&f->loop, f->path, peer_accepted, f, &err, &f->server) < 0)
        return -1;
    struct qmp_options o = {.on_event = on_event, .on_closed = on_closed, .user = f};
    if (qmp_open(&f->loop, f->path, &o, &err, &f->qmp) < 0)
        return -1;
    *state = f;
    return loop_until(&f->loop, peer_is_there, f) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    qmp_close(f->qmp);
    if (f->peer >= 0)
        close(f->peer);
    jsonline_server_close(f->server);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_close(&f->loop);
    rmdir(f->folder);
    buf_free(&f->asked);
    buf_free(&f->journal);
    free(f);
    return 0;
}

static void say(struct fixture *f, const char *text)
{
    assert_int_equal(write(f->peer, text, strlen(text)), strlen(text));
}

static void hang_up(struct fixture *f)
{
    close(f->peer);
    f->peer = -1;
}

struct wait {
    struct fixture *f;
    const char *text;
    bool in_journal;
};

static bool text_is_there(void *user)
{
    struct wait *w = user;
    if (w->in_journal)
        return strstr(buf_str(&w->f->journal), w->text) != NULL;
    ssize_t n = w->f->peer < 0 ? 0 : read(w->f->peer, buf_reserve(&w->f->asked, 65536), 65536);
    if (n > 0)
        w->f->asked.len += (size_t)n;
    return strstr(buf_str(&w->f->asked), w->text) != NULL;
}

/* Waits until the callbacks were told `text`. */
static void expect(struct fixture *f, const char *text)
{
    struct wait w = {f, text, true};
    if (!loop_until(&f->loop, text_is_there, &w))
        fail_msg("expected %s; told: %s", text, buf_str(&f->journal));
}

/* Waits until QEMU was asked `text`. */
static void expect_asked(struct fixture *f, const char *text)
{
    struct wait w = {f, text, false};
    bool asked = false;
    for (int turn = 0; turn < 1000 && !asked; turn++) {
        uv_run(&f->loop, UV_RUN_NOWAIT);
        asked = text_is_there(&w);
    }
    if (!asked)
        fail_msg("expected to be asked %s; asked: %s", text, buf_str(&f->asked));
}

static void negotiate(struct fixture *f)
{
    say(f, GREETING);
    expect_asked(f, "{\"execute\":\"qmp_capabilities\"}\n");
    say(f, "{\"return\":{}}\n");
}

static void commands_wait_for_the_greeting(void **state)
{
    struct fixture *f = *state;
    qmp_command(f->qmp, "query-status", NULL, 5000, on_reply, f);
    for (int turn = 0; turn < 5; turn++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_false(text_is_there(&(struct wait){f, "query-status", false}));
    negotiate(f);
    expect_asked(f, "{\"execute\":\"query-status\",\"id\":1}\n");
    say(f, "{\"return\":{\"running\":true},\"id\":1}\n");
    expect(f, "reply {\"running\":true}\n");
    assert_string_equal(buf_str(&f->journal), "reply {\"running\":true}\n");
}

static void replies_find_their_command(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "one", NULL, 5000, on_reply, f);
    qmp_command(f->qmp, "two", json_pack("{s:[i,i]}", "x", 1, 2), 5000, on_reply, f);
    qmp_command(f->qmp, "three", NULL, 5000, NULL, NULL);
    expect_asked(f, "{\"execute\":\"two\",\"id\":2,\"arguments\":{\"x\":[1,2]}}\n");
    say(f, "{\"return\":\"b\",\"id\":2}\n{\"return\":\"c\",\"id\":3}\n{\"return\":\"a\",\"id\":1}\n");
    expect(f, "reply \"a\"\n");
    assert_string_equal(buf_str(&f->journal), "reply \"b\"\nreply \"a\"\n");
}

static void error_replies_keep_the_reason(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "migrate", NULL, 5000, on_reply, f);
    say(f, "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no such thing\"},\"id\":1}\n");
    expect(f, "failed wrong-state: QEMU refused migrate: no such thing\n");
    qmp_command(f->qmp, "stop", NULL, 5000, on_reply, f);
    say(f, "{\"error\":17,\"id\":2}\n");
    expect(f, "QEMU refused stop: no reason given\n");
}

static void events_pass_at_any_time(void **state)
{
    struct fixture *f = *state;
    say(f, "{\"event\":\"EARLY\",\"timestamp\":{}}\n");
    expect(f, "event EARLY {}\n");
    negotiate(f);
    qmp_command(f->qmp, "stop", NULL, 5000, on_reply, f);
    say(f, "{\"event\":\"STOP\",\"data\":{\"a\":1}}\n{\"return\":{},\"id\":1}\n{\"event\":\"ODD\",\"data\":7}\n");
    expect(f, "event ODD {}\n");
    assert_string_equal(buf_str(&f->journal), "event EARLY {}\nevent STOP {\"a\":1}\nreply {}\nevent ODD {}\n");
}

/* QEMU is foreign: odd but well-formed messages change nothing. */
static void odd_messages_are_passed_over(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "one", NULL, 5000, on_reply, f);
    say(f, "{}\n{\"return\":1}\n{\"return\":1,\"id\":99}\n{\"return\":1,\"id\":\"1\"}\n{\"id\":-1,\"error\":{}}\n{"
           "\"event\":7}\n" GREETING);
    say(f, "{\"return\":\"right\",\"id\":1}\n");
    expect(f, "reply \"right\"\n");
    assert_string_equal(buf_str(&f->journal), "reply \"right\"\n");
}

static void silence_times_out(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "slow", NULL, 20, on_reply, f);
    qmp_command(f->qmp, "patient", NULL, 10000, on_reply, f);
    expect(f, "failed timeout: QEMU did not answer slow in time\n");
    say(f, "{\"return\":\"late\",\"id\":1}\n{\"return\":\"right\",\"id\":2}\n"); /* the late answer is nobody's */
    expect(f, "reply \"right\"\n");
    assert_null(strstr(buf_str(&f->journal), "late\""));
}

static void missing_greeting_times_out(void **state)
{
    struct fixture *f = *state;
    qmp_command(f->qmp, "stop", NULL, 20, on_reply, f);
    expect(f, "failed timeout");
    negotiate(f); /* and what came too late is not sent behind its caller's back */
    qmp_command(f->qmp, "cont", NULL, 5000, on_reply, f);
    expect_asked(f, "\"cont\"");
    assert_null(strstr(buf_str(&f->asked), "\"stop\""));
}

static void refused_negotiation_ends_it(void **state)
{
    struct fixture *f = *state;
    qmp_command(f->qmp, "stop", NULL, 5000, on_reply, f);
    say(f, GREETING "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n");
    expect(f, "closed protocol\n");
    assert_non_null(strstr(buf_str(&f->journal), "failed protocol"));
}

static void hang_up_fails_what_is_under_way(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "one", NULL, 5000, on_reply, f);
    qmp_command(f->qmp, "two", NULL, 5000, on_reply, f);
    expect_asked(f, "\"two\"");
    hang_up(f);
    expect(f, "closed unavailable\n");
    assert_string_equal(buf_str(&f->journal), "failed unavailable: peer closed the connection\n"
                                              "failed unavailable: peer closed the connection\n"
                                              "closed unavailable\n");
    qmp_command(f->qmp, "three", NULL, 60000, on_reply, f); /* at once, but not from inside the call */
    assert_null(strstr(buf_str(&f->journal), "three"));
    expect(f, "failed unavailable: QEMU went away before three\n");
}

static void garbage_fails_what_is_under_way(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "one", NULL, 5000, on_reply, f);
    say(f, "this is not JSON\n");
    expect(f, "closed protocol\n");
    assert_memory_equal(buf_str(&f->journal), "failed protocol", 15);
}

static void oversize_fails_what_is_under_way(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "one", NULL, 5000, on_reply, f);
    char *piece = mem_alloc(65536);
    memset(piece, 'a', 65536);
    for (size_t i = 0; i < JSONLINE_MAX / 65536 + 2 && !strstr(buf_str(&f->journal), "closed");) {
        if (send(f->peer, piece, 65536, MSG_NOSIGNAL) > 0)
            i++;
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    free(piece);
    expect(f, "closed protocol\n");
}

static void closing_cancels(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "one", NULL, 5000, on_reply, f);
    qmp_close(f->qmp);
    f->qmp = NULL;
    assert_string_equal(buf_str(&f->journal), "failed cancelled: connection to QEMU closed\n");
}

static void closing_inside_a_reply(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    qmp_command(f->qmp, "one", NULL, 5000, reply_then_close, f);
    qmp_command(f->qmp, "two", NULL, 5000, on_reply, f);
    say(f, "{\"return\":1,\"id\":1}\n{\"return\":2,\"id\":2}\n");
    expect(f, "failed cancelled");
    assert_string_equal(buf_str(&f->journal), "reply 1\nfailed cancelled: connection to QEMU closed\n");
}

static void closing_inside_the_others(void **state)
{
    struct fixture *f = *state;
    f->close_inside = true;
    hang_up(f);
    expect(f, "closed unavailable\n");
    assert_null(f->qmp);
}

/* An event counts from when QEMU says it happened, unless that cannot be. */
static void events_have_their_time(void **state)
{
    struct fixture *f = *state;
    char line[200];
    int64_t now_ms = clock_wall_ms();
    snprintf(line, sizeof line,
        GREETING "{\"event\":\"PAST\",\"timestamp\":{\"seconds\":%lld,\"microseconds\":%lld}}\n",
        (long long)(now_ms / 1000 - 20), (long long)(now_ms % 1000 * 1000));
    say(f, line);
    expect(f, "event PAST {}\n");
    uint64_t now_ns = clock_now_ns();
    assert_in_range(f->event_ns, now_ns - UINT64_C(50000000000), now_ns - UINT64_C(19000000000));
    const char *const senseless[] = {
        "{\"event\":\"ODD\",\"timestamp\":{\"seconds\":-1,\"microseconds\":-1}}\n",
        "{\"event\":\"ODD\",\"timestamp\":{\"seconds\":9223372036854775807,\"microseconds\":5}}\n",
        "{\"event\":\"ODD\",\"timestamp\":{\"seconds\":\"1\",\"microseconds\":5}}\n",
        "{\"event\":\"ODD\",\"timestamp\":{\"seconds\":1,\"microseconds\":5}}\n",
        "{\"event\":\"ODD\"}\n",
    };
    for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++) {
        uint64_t before_ns = clock_now_ns();
        buf_clear(&f->journal);
        say(f, senseless[i]);
        expect(f, "event ODD {}\n");
        assert_in_range(f->event_ns, before_ns, clock_now_ns());
    }
}

static void closing_inside_an_event(void **state)
{
    struct fixture *f = *state;
    f->close_inside = true;
    negotiate(f);
    say(f, "{\"event\":\"SHUTDOWN\"}\n{\"event\":\"STOP\"}\n");
    expect(f, "event SHUTDOWN {}\n");
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_string_equal(buf_str(&f->journal), "event SHUTDOWN {}\n");
}

static void retrying_callbacks_do_not_spin(void **state)
{
    struct fixture *f = *state;
    negotiate(f);
    f->reissues = 1;
    qmp_command(f->qmp, "one", NULL, 5000, reply_then_retry, f);
    hang_up(f);
    /* The command given from inside the failing callback fails as any command on a dead connection does: later. */
    expect(f, "failed unavailable\nclosed unavailable\nfailed unavailable\n");
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(commands_wait_for_the_greeting),
        T(replies_find_their_command),
        T(error_replies_keep_the_reason),
        T(events_pass_at_any_time),
        T(odd_messages_are_passed_over),
        T(silence_times_out),
        T(missing_greeting_times_out),
        T(refused_negotiation_ends_it),
        T(hang_up_fails_what_is_under_way),
        T(garbage_fails_what_is_under_way),
        T(oversize_fails_what_is_under_way),
        T(closing_cancels),
        T(closing_inside_a_reply),
        T(closing_inside_the_others),
        T(events_have_their_time),
        T(closing_inside_an_event),
        T(retrying_callbacks_do_not_spin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
