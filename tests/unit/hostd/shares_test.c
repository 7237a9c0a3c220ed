/* What migrations on one host may use: shares of what there is, and the cores they keep off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "hostd/pinned.h"
#include "hostd/shares.h"

#define MAX 4

static void test_what_there_is_is_divided(void **state)
{
    static const struct {
        uint64_t total;
        size_t count;
        uint64_t most[MAX], given[MAX];
    } rows[] = {
        {0, 3, {0, 5, 0}, {0, 0, 0}},
        {100, 1, {0}, {100}},
        {100, 2, {0, 0}, {50, 50}},
        {100, 3, {0, 0, 0}, {33, 33, 33}},
        {100, 2, {10, 0}, {10, 90}},
        {100, 4, {10, 0, 30, 0}, {10, 30, 30, 30}},
        {100, 4, {10, 26, 35, 0}, {10, 26, 32, 32}},
        {100, 2, {10, 20}, {10, 20}},
        {100, 2, {500, 0}, {50, 50}},
        {1, 3, {0, 0, 0}, {1, 1, 1}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct share shares[MAX];
        for (size_t k = 0; k < rows[i].count; k++)
            shares[k] = (struct share){.most = rows[i].most[k], .given = 99};
        shares_divide(rows[i].total, shares, rows[i].count);
        for (size_t k = 0; k < rows[i].count; k++)
            assert_int_equal(shares[k].given, rows[i].given[k]);
    }
    shares_divide(100, NULL, 0);
}

static cpu_set_t cores(unsigned long bits)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (unsigned i = 0; i < 64; i++)
        if (bits >> i & 1)
            CPU_SET(i, &set);
    return set;
}

static void test_others_keep_off_pinned_cores(void **state)
{
    (void)state;
    cpu_set_t all = cores(0xf), rest, pinned = cores(0x6), expected = cores(0x9);
    assert_true(pinned_rest(&all, &pinned, &rest));
    assert_true(CPU_EQUAL(&rest, &expected));
    pinned = cores(0);
    assert_true(pinned_rest(&all, &pinned, &rest));
    assert_true(CPU_EQUAL(&rest, &all));
    pinned = cores(0xff); /* nothing remains */
    assert_false(pinned_rest(&all, &pinned, &rest));
    assert_true(CPU_EQUAL(&rest, &all));
}

struct vcpu {
    const char *name;
    const cpu_set_t *on; /* NULL: anywhere */
    int told[2], over[2];
};

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    char byte = 0;
    pthread_setname_np(pthread_self(), v->name);
    if (v->on)
        sched_setaffinity(0, sizeof *v->on, v->on);
    assert_int_equal(write(v->told[1], &byte, 1), 1);
    assert_int_equal(read(v->over[0], &byte, 1), 0);
    return NULL;
}

static void pinned_with(const char *name, const cpu_set_t *on, const cpu_set_t *all, cpu_set_t *out)
{
    struct vcpu v = {.name = name, .on = on};
    pthread_t thread;
    char byte;
    assert_int_equal(pipe(v.told) | pipe(v.over), 0);
    assert_int_equal(pthread_create(&thread, NULL, vcpu_main, &v), 0);
    assert_int_equal(read(v.told[0], &byte, 1), 1);
    CPU_ZERO(out);
    pinned_add(getpid(), all, out);
    close(v.over[1]);
    pthread_join(thread, NULL);
    close(v.over[0]);
    close(v.told[0]);
    close(v.told[1]);
}

static void test_pinned_virtual_cpus_are_found(void **state)
{
    (void)state;
    cpu_set_t all, one, found, none = cores(0);
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2)
        skip();
    unsigned core = 0;
    while (!CPU_ISSET(core, &all))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    pinned_with("CPU 0/TCG", &one, &all, &found);
    assert_true(CPU_EQUAL(&found, &one));
    pinned_with("CPU 0/TCG", NULL, &all, &found);
    assert_true(CPU_EQUAL(&found, &none));
    pinned_with("worker", &one, &all, &found); /* QEMU's own work may be anywhere */
    assert_true(CPU_EQUAL(&found, &none));
    pinned_add(-1, &all, &found);
    assert_true(CPU_EQUAL(&found, &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_there_is_is_divided),
        cmocka_unit_test(test_others_keep_off_pinned_cores),
        cmocka_unit_test(test_pinned_virtual_cpus_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
