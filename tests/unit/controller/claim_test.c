/* Who is a host, and who only has its key. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <string.h>

#include "controller/fleet/claim.h"

struct machine {
    const char *id, *boot;
};

static const struct machine host = {"m1", "b1"}, booted = {"m1", "b2"}, copy = {"m2", "b3"}, silent = {"", ""};

static Drover__HostFacts facts_of(struct machine m)
{
    Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
    facts.machine = (char *)(uintptr_t)m.id;
    facts.boot_id = (char *)(uintptr_t)m.boot;
    return facts;
}

/* What is known: of the log and of the session, each of a machine or NULL. */
struct known {
    const struct machine *logged, *session;
    bool early, holds;
};

static enum err_code ask(struct claims *claims, struct machine m, struct known k, bool stand_in, uint64_t now_ms)
{
    struct err err;
    bool news;
    Drover__HostFacts facts = facts_of(m), logged = facts_of(k.logged ? *k.logged : silent),
                      session = facts_of(k.session ? *k.session : silent);
    Drover__HostHelloRequest hello = DROVER__HOST_HELLO_REQUEST__INIT;
    hello.facts = &facts;
    hello.stand_in = stand_in;
    const struct claim_known known = {k.logged ? &logged : NULL, k.session ? &session : NULL, k.early, k.holds};
    return claims_check(claims, "h1", &hello, &known, now_ms, &err, &news) == 0 ? ERR_NONE : err.code;
}

static void heard(struct claims *claims, struct machine m, uint64_t now_ms)
{
    Drover__HostFacts facts = facts_of(m);
    claims_heard(claims, "h1", &facts, now_ms);
}

static void every_case(void **unused)
{
    (void)unused;
    static const struct {
        const char *what;
        const struct machine *who;
        struct known known;
        bool stand_in;
        enum err_code expected;
    } rows[] = {
        {"a new host", &host, {NULL, NULL, true, false}, false, ERR_NONE},
        {"its daemon started again", &host, {&host, &host, false, true}, false, ERR_NONE},
        {"booted anew, within its lease", &booted, {&host, &host, false, true}, false, ERR_EXISTS},
        {"booted anew", &booted, {&host, NULL, false, true}, false, ERR_NONE},
        {"booted anew, before a new leader can know", &booted, {&host, NULL, true, true}, false, ERR_UNAVAILABLE},
        {"itself, to a new leader", &host, {&host, NULL, true, true}, false, ERR_NONE},
        {"a copy while it is heard", &copy, {&host, &host, false, true}, false, ERR_EXISTS},
        {"a copy while it stands still", &copy, {&host, NULL, false, true}, false, ERR_EXISTS},
        {"a copy to a new leader", &copy, {&host, NULL, true, true}, false, ERR_UNAVAILABLE},
        {"another machine for a host without VMs", &copy, {&host, NULL, false, false}, false, ERR_NONE},
        {"a stand-in", &copy, {&host, NULL, false, true}, true, ERR_NONE},
        {"a stand-in while it is heard", &copy, {&host, &host, false, true}, true, ERR_EXISTS},
        {"a stand-in to a new leader", &copy, {&host, NULL, true, true}, true, ERR_UNAVAILABLE},
        {"one that says nothing of itself", &silent, {&host, &host, false, true}, false, ERR_NONE},
        {"after one that said nothing", &host, {&silent, &silent, true, true}, false, ERR_NONE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct claims *claims = claims_new();
        enum err_code code = ask(claims, *rows[i].who, rows[i].known, rows[i].stand_in, 1000);
        if (code != rows[i].expected)
            fail_msg("%s: %s", rows[i].what, err_name(code));
        assert_true((claims_refused(claims, "h1", 1000) != NULL) == (code != ERR_NONE));
        claims_free(claims);
    }
}

/* A whole copy of the machine's disk, on one that calls itself alike: only that both are up at one time gives it away,
 * and that is not forgotten when the host stands still for longer than its lease. */
static void who_was_up_beside_the_host_is_not_the_host(void **unused)
{
    (void)unused;
    struct claims *claims = claims_new();
    const struct known up = {&host, &host, false, true}, still = {&host, NULL, false, true};
    assert_int_equal(ask(claims, booted, up, false, 1000), ERR_EXISTS);
    heard(claims, host, 1100); /* maybe sent before it went down */
    assert_int_equal(ask(claims, booted, still, false, 8000), ERR_NONE);
    assert_int_equal(ask(claims, booted, up, false, 10000), ERR_EXISTS);
    heard(claims, host, 12000);
    assert_int_equal(ask(claims, booted, still, false, 20000), ERR_EXISTS);
    assert_non_null(claims_refused(claims, "h1", 20000));
    assert_null(claims_refused(claims, "h2", 20000));
    assert_null(claims_refused(claims, "h1", 20000 + CLAIM_SHOWN_MS));
    assert_int_equal(ask(claims, host, still, false, 20100), ERR_NONE);
    assert_int_equal(ask(claims, booted, still, true, 20200), ERR_NONE);
    assert_int_equal(ask(claims, booted, up, false, 30000), ERR_EXISTS);
    heard(claims, host, 32000);
    assert_int_equal(ask(claims, booted, still, false, 40000), ERR_EXISTS);
    claims_forget(claims, "h2");
    assert_int_equal(ask(claims, booted, still, false, 40100), ERR_EXISTS);
    claims_forget(claims, "h1"); /* was removed, and added again with the other machine's key */
    assert_int_equal(ask(claims, booted, still, false, 40200), ERR_NONE);
    claims_free(claims);
}

static void a_refusal_is_news_once(void **unused)
{
    (void)unused;
    struct err err;
    bool news;
    struct claims *claims = claims_new();
    Drover__HostFacts facts = facts_of(copy), session = facts_of(host);
    Drover__HostHelloRequest hello = DROVER__HOST_HELLO_REQUEST__INIT;
    hello.facts = &facts;
    const struct claim_known known = {&session, &session, false, true};
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(claims_check(claims, "h1", &hello, &known, 1000 + i, &err, &news), -1);
        assert_true(news == (i == 0));
    }
    claims_free(claims);
}

/* However many come. */
static void refusals_are_bounded(void **unused)
{
    (void)unused;
    char boot[16];
    struct claims *claims = claims_new();
    for (uint64_t i = 0; i < 1000; i++) {
        snprintf(boot, sizeof boot, "x%u", (unsigned)i);
        assert_int_equal(
            ask(claims, (struct machine){"m1", boot}, (struct known){&host, &host, false, true}, false, i), ERR_EXISTS);
    }
    assert_non_null(claims_refused(claims, "h1", 1000));
    claims_free(claims);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
        cmocka_unit_test(who_was_up_beside_the_host_is_not_the_host),
        cmocka_unit_test(a_refusal_is_news_once),
        cmocka_unit_test(refusals_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
