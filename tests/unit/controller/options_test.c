/* The configuration file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "controller/auth/auth.h"

static char keys[4][KEY_TEXT];
static uint8_t raw[4][KEY_BYTES];

static int make_keys(void **unused)
{
    (void)unused;
    struct err err;
    for (int i = 0; i < 4; i++) {
        struct key_pair pair;
        if (key_generate(&err, &pair) < 0)
            return -1;
        memcpy(raw[i], pair.public_key, KEY_BYTES);
        key_format(pair.public_key, keys[i]);
    }
    return 0;
}

/* A file of a controller, good but for what is given, with `more` at its end. Take. */
static char *file_of(const char *name, const char *api, const char *more)
{
    return mem_printf("[node]\nname = %s\nkey = /etc/drover/c1.key\n[raft]\nlisten = "
                      "tcp://127.0.0.1:7410\n[api]\nlisten = %s\n"
                      "[cluster]\nmember = c1 %s tcp://127.0.0.1:7410 tcp://127.0.0.1:7420\n"
                      "member = c2 %s tcp://127.0.0.2:7410 tcp://127.0.0.2:7420\nadmin = anna %s\n%s\n",
        name, api, keys[0], keys[1], keys[2], more);
}

/* A good file with `more` at its end. Take. */
static char *file(const char *more)
{
    return file_of("c1", "tcp://127.0.0.1:7420", more);
}

static void good_file(void **unused)
{
    (void)unused;
    struct err err;
    struct options o;
    char *text = file("[optimizer]\nautomatic = true\nhigh_cpu = 0.7\nlow_cpu = 0.5\nhold_s = 15\n");
    assert_int_equal(options_parse("test", text, &err, &o), 0);
    assert_int_equal(o.member_count, 2);
    assert_string_equal(o.members[1].raft_address, "tcp://127.0.0.2:7410");
    assert_string_equal(o.members[1].api_address, "tcp://127.0.0.2:7420");
    assert_memory_equal(o.members[1].public_key, raw[1], KEY_BYTES);
    assert_int_equal(o.admin_count, 1);
    assert_string_equal(o.admins[0].name, "anna");
    assert_true(o.optimizer_automatic);
    assert_float_equal(o.optimizer.high[RESOURCE_CPU], 0.7, 0);
    assert_int_equal(o.optimizer.hold_ms, 15000);
    assert_int_equal(o.lease_ms, 5000);
    options_free(&o);
    free(text);
}

static void refuses(char *text, const char *part)
{
    struct err err = {0};
    struct options o;
    assert_int_equal(options_parse("test", text, &err, &o), -1);
    if (!strstr(err.message, part))
        fail_msg("'%s' does not say '%s'", err.message, part);
    free(text);
}

static void bad_files(void **unused)
{
    (void)unused;
    refuses(file("[cluster]\nmember = c3"), "4 words");
    refuses(file("[cluster]\nmember = c3 notakey tcp://127.0.0.1:1 tcp://127.0.0.1:2"), "cluster.member");
    refuses(mem_printf("%s[cluster]\nmember = c2 %s tcp://127.0.0.1:1 tcp://127.0.0.1:2\n", "", keys[3]), "missing");
    char line[256];
    snprintf(line, sizeof line, "[cluster]\nmember = c2 %s tcp://127.0.0.1:1 tcp://127.0.0.1:2", keys[3]);
    refuses(file(line), "twice");
    snprintf(line, sizeof line, "[cluster]\nmember = c3 %s 127.0.0.1:1 tcp://127.0.0.1:2", keys[3]);
    refuses(file(line), "tcp://IP:PORT");
    snprintf(line, sizeof line, "[cluster]\nadmin = anna %s please", keys[3]);
    refuses(file(line), "too many");
    refuses(file_of("c9", "tcp://127.0.0.1:7420", ""), "cluster.member");
    refuses(file("[lease]\nms = 1000\n[heartbeat]\nms = 900"), "lease.ms");
    refuses(file("[optimizer]\nlow_cpu = 0.9"), "low_cpu");
    refuses(file("[log]\nlevel = loud"), "log.level");
    refuses(file_of("c1", "7420", ""), "tcp://IP:PORT");
}

/* Until the log knows the members, the file does; then only the log counts. Administrators of the file stay. */
static void who_is_who(void **unused)
{
    (void)unused;
    struct err err;
    struct options o;
    struct principal who;
    char *text = file("");
    assert_int_equal(options_parse("test", text, &err, &o), 0);
    struct state *state = state_new();
    struct replica *none = NULL;
    struct auth auth = {&o, state, &none};
    assert_true(auth_lookup(&auth, raw[1], &who));
    assert_int_equal(who.kind, PRINCIPAL_CONTROLLER);
    assert_string_equal(who.name, "c2");
    assert_true(auth_lookup(&auth, raw[2], &who));
    assert_int_equal(who.kind, PRINCIPAL_USER);
    assert_false(auth_lookup(&auth, raw[3], &who));

    Drover__MemberPut member = DROVER__MEMBER_PUT__INIT;
    Drover__Effect effect = DROVER__EFFECT__INIT, *effects[] = {&effect};
    Drover__Change change = DROVER__CHANGE__INIT;
    Drover__Command command = DROVER__COMMAND__INIT;
    member.name = (char *)"c1";
    member.public_key = (ProtobufCBinaryData){KEY_BYTES, raw[0]};
    effect.change_case = DROVER__EFFECT__CHANGE_MEMBER_PUT;
    effect.member_put = &member;
    change.effects = effects;
    change.n_effects = 1;
    command.body_case = DROVER__COMMAND__BODY_CHANGE;
    command.change = &change;
    uint8_t packed[512];
    struct buf result = {0};
    state_apply(state, packed, drover__command__pack(&command, packed), &result);
    assert_true(auth_lookup(&auth, raw[0], &who));
    assert_false(auth_lookup(&auth, raw[1], &who)); /* c2 has been removed */
    assert_true(auth_lookup(&auth, raw[2], &who));
    buf_free(&result);
    state_free(state);
    options_free(&o);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(who_is_who),
    };
    return cmocka_run_group_tests(tests, make_keys, NULL);
}
