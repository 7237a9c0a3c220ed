/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <string.h>

#include "base/cleanup.h"
#include "hostd/engine.h"
#include "tests/unit/hostd/specs.h"

static enum report_change apply(struct report *report, const char *text)
{
    json_t *event = json_loads(text, 0, NULL);
    assert_non_null(event);
    enum report_change change = report_apply(report, event);
    json_decref(event);
    return change;
}

static void a_migration_as_it_is_told(void **unused)
{
    (void)unused;
    struct report r = {0};
    assert_int_equal(apply(&r, "{\"event\":\"listening\",\"address\":\"tcp://10.0.0.2:99\"}"), REPORT_LISTENING);
    assert_string_equal(r.address, "tcp://10.0.0.2:99");
    assert_int_equal(apply(&r, "{\"event\":\"phase\",\"phase\":\"precopy\"}"), REPORT_PHASE);
    assert_int_equal(apply(&r, "{\"event\":\"round\",\"number\":1,\"pages\":100,\"raw_bytes\":4096,\"wire_bytes\":1000,"
                               "\"remaining_bytes\":777,\"bandwidth_bytes_per_s\":5,\"dirty_pages_per_s\":6}"),
        REPORT_ROUND);
    assert_int_equal(
        apply(&r, "{\"event\":\"round\",\"number\":2,\"pages\":10,\"raw_bytes\":4,\"wire_bytes\":1}"), REPORT_ROUND);
    Drover__MigrationProgress progress;
    report_progress(&r, 1234, &progress);
    assert_string_equal(progress.phase, "precopy");
    assert_int_equal(progress.round, 2);
    assert_int_equal(progress.raw_bytes, 4100);
    assert_int_equal(progress.wire_bytes, 1001);
    assert_int_equal(progress.elapsed_ms, 1234);
    assert_int_equal(r.record->n_rounds, 2);
    assert_int_equal(
        apply(&r, "{\"event\":\"done\",\"record\":{\"total_us\":9,\"blackout_us\":8,\"mode\":\"precopy\","
                  "\"rounds\":[{\"number\":1},{\"number\":2},{\"number\":3}],\"source_hash\":\"ab\",\"receipt\":\"cd\","
                  "\"disk_bytes\":900,\"disk_us\":80,\"clock_forward_us\":7,\"clock_left\":\"why\","
                  "\"classes\":{\"zero\":{\"pages\":5,\"bytes\":6},\"raw\":{\"pages\":-1}}}}"),
        REPORT_DONE);
    assert_true(r.done);
    assert_int_equal(r.heard_us, 0);
    assert_int_equal(apply(&r, "{\"event\":\"heard\",\"after_us\":1500}"), REPORT_HEARD);
    assert_int_equal(r.heard_us, 1500);
    assert_int_equal(r.record->blackout_us, 8);
    assert_int_equal(r.record->clock_forward_us, 7);
    assert_int_equal(r.record->disk_bytes, 900);
    assert_int_equal(r.record->disk_us, 80);
    assert_string_equal(r.record->clock_left, "why");
    assert_string_equal(r.record->mode, "precopy");
    assert_string_equal(r.record->source_hash, "ab");
    assert_int_equal(r.record->n_rounds, 3);
    assert_string_equal(r.record->receipt, "cd");
    assert_int_equal(r.record->n_classes, 2);
    assert_string_equal(r.record->classes[0]->name, "zero");
    assert_int_equal(r.record->classes[0]->pages, 5);
    assert_int_equal(r.record->classes[0]->bytes, 6);
    assert_int_equal(r.record->classes[1]->pages, 0);
    report_clear(&r);
}

static void failures_keep_their_code(void **unused)
{
    (void)unused;
    struct report r = {0};
    assert_int_equal(
        apply(&r, "{\"event\":\"failed\",\"code\":\"no-convergence\",\"message\":\"too\\u0007 fast\"}"), REPORT_FAILED);
    assert_int_equal(r.failure.code, ERR_CONVERGENCE);
    assert_string_equal(r.failure.message, "too? fast");
    report_clear(&r);
}

static void last_words_of_an_engine_are_a_failure_or_none(void **unused)
{
    (void)unused;
    struct err err = {0};
    assert_true(report_last_words(
        "time=2026-01-01T00:00:00.000Z level=error program=migrate-source event=migration.failed migration=m "
        "code=wrong-state message=\"the guest said \\\"no\\\" \\\\ and\a stood\"",
        &err));
    assert_int_equal(err.code, ERR_WRONG_STATE);
    assert_string_equal(err.message, "the guest said \"no\" \\ and? stood");
    assert_true(report_last_words("time=x level=error code=nonsense message=\"cut off", &err));
    assert_int_equal(err.code, ERR_INTERNAL);
    assert_string_equal(err.message, "cut off");
    static const char *const others[] = {"", "drover-migrate: no such file",
        "time=x level=error code=", "time=x level=info event=migration.done code=none message=\"all is well\"",
        "time=x level=error event=page.unread message=\"no\"", "time=x level=error message=\"a code=b\""};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(report_last_words(others[i], &err));
    assert_string_equal(err.message, "cut off");
}

static void nonsense_changes_nothing(void **unused)
{
    (void)unused;
    struct report r = {0};
    assert_int_equal(apply(&r, "{}"), REPORT_NOTHING);
    assert_int_equal(apply(&r, "{\"event\":7}"), REPORT_NOTHING);
    assert_int_equal(apply(&r, "{\"event\":\"listening\"}"), REPORT_NOTHING);
    assert_int_equal(apply(&r, "{\"event\":\"round\",\"number\":-5,\"pages\":\"x\",\"raw_bytes\":-1}"), REPORT_ROUND);
    assert_int_equal(r.raw_bytes, 0);
    for (int i = 0; i < 2 * REPORT_ROUNDS_MAX; i++)
        apply(&r, "{\"event\":\"round\",\"number\":1}");
    assert_int_equal(r.record->n_rounds, REPORT_ROUNDS_MAX);
    assert_int_equal(apply(&r, "{\"event\":\"done\"}"), REPORT_DONE);
    report_clear(&r);
}

static void record_files(void **unused)
{
    (void)unused;
    static const struct {
        const char *text;
        enum record_phase phase;
    } table[] = {
        {"{\"migration\":\"m-1\",\"phase\":\"handed-over\"}", RECORD_HANDED_OVER},
        {"{\"migration\":\"m-1\",\"phase\":\"handed-over\",\"postcopy\":true}", RECORD_SENDING},
        {"{\"migration\":\"m-1\",\"phase\":\"taken\"}", RECORD_TAKEN},
        {"{\"migration\":\"m-1\",\"phase\":\"owner\"}", RECORD_OWNER},
        {"{\"migration\":\"m-1\",\"phase\":\"owner\",\"postcopy\":true}", RECORD_FETCHING},
        {"{\"migration\":\"m-1\",\"phase\":\"failed\"}", RECORD_FAILED},
        {"{\"migration\":\"m-2\",\"phase\":\"failed\"}", RECORD_UNREADABLE}, /* of another migration */
        {"{\"migration\":\"m-1\",\"phase\":\"owner", RECORD_UNREADABLE},
        {"{\"migration\":\"m-1\",\"phase\":\"\"}", RECORD_UNREADABLE},
        {"{\"migration\":\"m-1\"}", RECORD_UNREADABLE},
        {"[]", RECORD_UNREADABLE},
        {"", RECORD_UNREADABLE},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        assert_int_equal(record_phase_parse(table[i].text, strlen(table[i].text), "m-1"), table[i].phase);
}

static void forecasts_are_kept_and_bounded(void **unused)
{
    (void)unused;
    struct report report = {0};
    json_t *event = json_pack("{s:s, s:s, s:I, s:i, s:s, s:[[I,I],[I,I],[i]]}", "event", "forecast", "mode", "hybrid",
        "total_us", (json_int_t)1500000, "rounds", 1, "why", "it writes", "curve", (json_int_t)5000, (json_int_t)8192,
        (json_int_t)10000, (json_int_t)-1, 7);
    json_t *curve = json_object_get(event, "curve");
    for (int i = 0; i < 100; i++)
        json_array_append_new(curve, json_pack("[i, i]", i, i));
    for (int again = 0; again < 2; again++) { /* a restarted hostd is told again */
        assert_int_equal(report_apply(&report, event), REPORT_FORECAST);
        const Drover__MigrationForecast *f = report.record->forecast;
        assert_string_equal(f->mode, "hybrid");
        assert_int_equal(f->total_us, 1500000);
        assert_in_range(f->n_curve, 3, 16);
        assert_int_equal(f->curve[0]->bytes, 8192);
        assert_int_equal(f->curve[1]->bytes, 0);
    }
    json_decref(event);
    Drover__MigrationProgress progress;
    report_progress(&report, 10, &progress);
    assert_string_equal(progress.forecast->why, "it writes");
    report_clear(&report);
}

static void the_engines_configuration(void **unused)
{
    (void)unused;
    struct specs s;
    specs_make(&s);
    Drover__MigrationOptions options = DROVER__MIGRATION_OPTIONS__INIT;
    static const char taps[SPEC_NICS_MAX][IF_NAMESIZE] = {"dv12345678n0"};
    struct engine_config config = {
        .role = ENGINE_DESTINATION,
        .taps = taps,
        .migration_id = "m-1",
        .key_file = "/etc/drover/host.key",
        .peer_key = "PEER",
        .directory = "/run/drover/partitions/x",
        .ram_path = "/dev/shm/x.ram",
        .spec = &s.spec,
        .guest = {4711, 1},
        .address = "tcp://10.0.0.2:0",
        .options = &options,
        .announce_interface = "eth0",
    };
    cleanup_free char *text = engine_config_format(&config);
    assert_non_null(strstr(text, "listen = tcp://10.0.0.2:0\n"));
    assert_non_null(strstr(text, "pid = 4711\n"));
    assert_non_null(strstr(text, "max_downtime_ms = 50\n")); /* the VM's, as the migration says nothing */
    assert_non_null(strstr(text, "mac = 52:54:00:12:34:56\nport = dv12345678n0\n"));
    assert_non_null(strstr(text, "enabled = false\n"));
    assert_null(strstr(text, "max_rounds"));
    assert_null(strstr(text, "[reuse]"));
    config.image = "/var/x.image";
    config.image_key = "/run/x.key";
    cleanup_free char *visited = engine_config_format(&config);
    assert_non_null(strstr(visited, "[reuse]\nimage = /var/x.image\nkey_file = /run/x.key\n"));
    config.image = NULL;
    assert_non_null(strstr(text, "[tracker]\nkind = auto\n"));
    config.role = ENGINE_SOURCE;
    Drover__LinkHistory way = DROVER__LINK_HISTORY__INIT;
    way.wire_bytes_per_s = 1000;
    way.pace_bytes_per_s = 4000;
    way.switch_us = UINT64_MAX;
    config.way = &way;
    options.on_no_convergence = DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE;
    options.max_downtime_ms = 10;
    options.max_rounds = 5;
    options.verify = true;
    options.tracker = (char[]){"wp-sync"};
    cleanup_free char *source = engine_config_format(&config);
    assert_non_null(strstr(source, "connect = tcp://10.0.0.2:0\n"));
    assert_non_null(strstr(source, "max_downtime_ms = 10\n"));
    assert_non_null(strstr(source, "max_rounds = 5\n"));
    assert_non_null(strstr(source, "enabled = true\n"));
    assert_non_null(strstr(source, "addresses = /run/drover/partitions/x/addresses\n"));
    assert_null(strstr(source, "interface = "));
    assert_non_null(strstr(source, "on_no_convergence = throttle\n"));
    assert_non_null(strstr(source, "last_wire = 1000\n"));
    assert_non_null(strstr(source, "last_pace = 4000\n"));
    assert_non_null(strstr(source, "last_switch_us = 60000000\n")); /* what the engine takes at most */
    assert_non_null(strstr(source, "[tracker]\nkind = wp-sync\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_migration_as_it_is_told),
        cmocka_unit_test(failures_keep_their_code),
        cmocka_unit_test(last_words_of_an_engine_are_a_failure_or_none),
        cmocka_unit_test(nonsense_changes_nothing),
        cmocka_unit_test(record_files),
        cmocka_unit_test(forecasts_are_kept_and_bounded),
        cmocka_unit_test(the_engines_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
