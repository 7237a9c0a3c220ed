#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/metrics.h"

static void families_and_samples(void **state)
{
    (void)state;
    struct metrics m = {0};
    metrics_family(&m, "drover_vms", METRIC_GAUGE, "Virtual machines by state.");
    metrics_sample(&m, 3, "state", "running", NULL);
    metrics_sample(&m, 0.25, "state", "stopped", "host", "a", NULL);
    metrics_family(&m, "drover_jobs_total", METRIC_COUNTER, "Jobs.");
    metrics_sample(&m, 9007199254740991.0, NULL);
    assert_string_equal(buf_str(&m.text), "# HELP drover_vms Virtual machines by state.\n"
                                          "# TYPE drover_vms gauge\n"
                                          "drover_vms{state=\"running\"} 3\n"
                                          "drover_vms{state=\"stopped\",host=\"a\"} 0.25\n"
                                          "# HELP drover_jobs_total Jobs.\n"
                                          "# TYPE drover_jobs_total counter\n"
                                          "drover_jobs_total 9007199254740991\n");
    buf_free(&m.text);
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"}, {-1, "-1"}, {0.1, "0.1"}, {1.0 / 3, "0.33333333333333331"}, {1e300, "1e+300"},
        {INFINITY, "+Inf"}, {-INFINITY, "-Inf"}, {NAN, "NaN"}, {1e-9, "1e-09"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct metrics m = {0};
        metrics_family(&m, "x", METRIC_GAUGE, "X.");
        buf_clear(&m.text);
        metrics_sample(&m, cases[i].value, NULL);
        char want[64];
        snprintf(want, sizeof want, "x %s\n", cases[i].text);
        assert_string_equal(buf_str(&m.text), want);
        buf_free(&m.text);
    }
}

/* A label value comes from the inventory: quotes, line ends and bytes that are no UTF-8 must not break the scrape. */
static void label_values_are_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *value, *text;
    } cases[] = {
        {"a\"b", "a\\\"b"},
        {"a\\b", "a\\\\b"},
        {"a\nb", "a\\nb"},
        {"M\xc3\xbcnchen", "M\xc3\xbcnchen"},
        {"\xe2\x82\xac\xf0\x9f\x90\x91", "\xe2\x82\xac\xf0\x9f\x90\x91"},
        {"\xff", "?"},
        {"\xc3", "?"},                /* cut off */
        {"\xc0\xaf", "??"},           /* overlong */
        {"\xe0\x80\x80x", "???x"},    /* overlong */
        {"\xed\xa0\x80", "???"},      /* surrogate */
        {"\xf4\x90\x80\x80", "????"}, /* beyond U+10FFFF */
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct metrics m = {0};
        metrics_family(&m, "x", METRIC_GAUGE, "X.");
        buf_clear(&m.text);
        metrics_sample(&m, 1, "name", cases[i].value, NULL);
        char want[64];
        snprintf(want, sizeof want, "x{name=\"%s\"} 1\n", cases[i].text);
        assert_string_equal(buf_str(&m.text), want);
        buf_free(&m.text);
    }
}

static void help_keeps_quotes(void **state)
{
    (void)state;
    struct metrics m = {0};
    metrics_family(&m, "x", METRIC_GAUGE, "a \"b\" \\ c\nd");
    assert_string_equal(buf_str(&m.text), "# HELP x a \"b\" \\\\ c\\nd\n# TYPE x gauge\n");
    buf_free(&m.text);
}

static const double bounds[] = {0.005, 0.01, 0.1};

static void histogram_is_cumulative(void **state)
{
    (void)state;
    struct metrics_histogram h = {.bounds = bounds, .bound_count = 3};
    metrics_observe(&h, 0.005); /* an upper bound belongs to its bucket */
    metrics_observe(&h, 0.006);
    metrics_observe(&h, 0.1);
    metrics_observe(&h, 2);
    metrics_observe(&h, NAN); /* ignored */
    struct metrics m = {0};
    metrics_histogram(&m, "drover_migration_blackout_seconds", "Blackout.", &h);
    assert_string_equal(buf_str(&m.text), "# HELP drover_migration_blackout_seconds Blackout.\n"
                                          "# TYPE drover_migration_blackout_seconds histogram\n"
                                          "drover_migration_blackout_seconds_bucket{le=\"0.005\"} 1\n"
                                          "drover_migration_blackout_seconds_bucket{le=\"0.01\"} 2\n"
                                          "drover_migration_blackout_seconds_bucket{le=\"0.1\"} 3\n"
                                          "drover_migration_blackout_seconds_bucket{le=\"+Inf\"} 4\n"
                                          "drover_migration_blackout_seconds_sum 2.111\n"
                                          "drover_migration_blackout_seconds_count 4\n");
    buf_free(&m.text);
}

static int status_of_child(void (*fn)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(99);
        fn();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void counter_without_total(void)
{
    struct metrics m = {0};
    metrics_family(&m, "drover_jobs", METRIC_COUNTER, "Jobs.");
}

static void gauge_with_total(void)
{
    struct metrics m = {0};
    metrics_family(&m, "drover_jobs_total", METRIC_GAUGE, "Jobs.");
}

static void sample_without_family(void)
{
    struct metrics m = {0};
    metrics_sample(&m, 1, NULL);
}

static void bad_name(void)
{
    struct metrics m = {0};
    metrics_family(&m, "drover-jobs", METRIC_GAUGE, "Jobs.");
}

static void our_own_mistakes_abort(void **state)
{
    (void)state;
    void (*const mistakes[])(void) = {counter_without_total, gauge_with_total, sample_without_family, bad_name};
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        int status = status_of_child(mistakes[i]);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

/* The judge is Prometheus itself. */
static void promtool_has_no_complaint(void **state)
{
    (void)state;
    if (system("command -v promtool >/dev/null 2>&1") != 0)
        skip();
    struct metrics m = {0};
    struct metrics_histogram h = {.bounds = bounds, .bound_count = 3};
    metrics_observe(&h, 0.02);
    metrics_process(&m, "drover-test");
    metrics_histogram(&m, "drover_migration_blackout_seconds", "Time a guest stood still.", &h);
    metrics_family(&m, "drover_vm_memory_bytes", METRIC_GAUGE, "Memory \\ \"quoted\"\nsecond line.");
    metrics_sample(&m, 1 << 30, "vm", "a\"b\\c\nd\xff", NULL);
    metrics_sample(&m, NAN, "vm", "M\xc3\xbcnchen", NULL);
    FILE *tool = popen("promtool check metrics >&2", "w");
    assert_non_null(tool);
    assert_int_equal(fwrite(m.text.data, 1, m.text.len, tool), m.text.len);
    assert_int_equal(pclose(tool), 0);
    assert_non_null(strstr(buf_str(&m.text), "drover_build_info{program=\"drover-test\",version=\""));
    assert_non_null(strstr(buf_str(&m.text), "\nprocess_resident_memory_bytes "));
    buf_free(&m.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_and_samples),
        cmocka_unit_test(numbers),
        cmocka_unit_test(label_values_are_escaped),
        cmocka_unit_test(help_keeps_quotes),
        cmocka_unit_test(histogram_is_cumulative),
        cmocka_unit_test(our_own_mistakes_abort),
        cmocka_unit_test(promtool_has_no_complaint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
