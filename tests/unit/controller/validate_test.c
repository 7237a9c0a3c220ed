/* What users may send, and that each refusal says what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "controller/api/validate.h"
#include "controller/pb.h"
#include "proto/limits.h"

static void names(void **unused)
{
    (void)unused;
    struct err err;
    const char *good[] = {
        "a", "web-1", "0", "9lives", "a-b-c", "abcdefghijklmnopqrstuvwxyz0123456789-abcdefghijklmnopqrstuvwxyz"};
    const char *bad[] = {"", "-a", "Web", "a_b", "a b", "a.b", "a/b", "\xc3\xa4", "a\n", "..", "a\x7f",
        "abcdefghijklmnopqrstuvwxyz0123456789-abcdefghijklmnopqrstuvwxyz0"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(validate_name("VM", good[i], &err), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(validate_name("VM", bad[i], &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        for (const char *c = err.message; *c; c++)
            assert_true((unsigned char)*c >= 0x20 && *c != 0x7f); /* what is shown on a terminal cannot steer it */
    }
}

static void addresses(void **unused)
{
    (void)unused;
    struct err err;
    const char *good[] = {"tcp://10.0.0.1:7420", "tcp://127.0.0.1:0", "tcp://[::1]:65535"};
    const char *bad[] = {"", "10.0.0.1:7420", "tcp://10.0.0.1", "tcp://10.0.0.1:", "tcp://10.0.0.1:x",
        "tcp://10.0.0.1:65536", "tcp://host:1", "tcp://10.0.0.1:-1", "tcp://:1", "udp://10.0.0.1:1", "tcp://[::1:5",
        "tcp://10.0.0.1:1 "};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(validate_address(good[i], &err), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(validate_address(bad[i], &err), -1);
}

static void texts(void **unused)
{
    (void)unused;
    struct err err;
    const char *good[] = {"", "plain", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x91"};
    const char *bad[] = {"\x01", "a\tb", "a\x1b[31m", "\x7f", "\xc2\x80", "\xff", "\xc3", "\xc0\xaf", "\xe0\x80\xaf",
        "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "123456789"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(validate_text("reason", good[i], 9, &err), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(validate_text("reason", bad[i], 8, &err), -1);
}

static Drover__VmSpec *spec(void)
{
    Drover__VmSpec *s = pb_new(&drover__vm_spec__descriptor);
    pb_string(&s->name, "web-1");
    s->vcpus = 2;
    s->memory_bytes = 512u << 20;
    pb_string(&s->kernel, "/boot/vmlinuz");
    pb_string(&s->initrd, "/boot/initrd");
    pb_string(&s->cmdline, "console=ttyS0");
    PB_ADD(s, disks, pb_new(&drover__disk__descriptor));
    pb_string(&s->disks[0]->path, "/srv/web-1.img");
    PB_ADD(s, nics, pb_new(&drover__nic__descriptor));
    pb_string(&s->nics[0]->mac, "52:54:00:12:34:56");
    return s;
}

static void refuses(Drover__VmSpec *s, const char *part)
{
    struct err err = {0};
    assert_int_equal(validate_vm_spec(s, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    if (!strstr(err.message, part))
        fail_msg("'%s' does not say '%s'", err.message, part);
    pb_free(s);
}

#define REFUSES(change, part)                                                                                          \
    do {                                                                                                               \
        Drover__VmSpec *s = spec();                                                                                    \
        change;                                                                                                        \
        refuses(s, part);                                                                                              \
    } while (0)

static const char *too_long(void)
{
    static char text[4000];
    memset(text, 'x', sizeof text - 1);
    return text;
}

static void size_and_disks(void **unused)
{
    (void)unused;
    struct err err;
    Drover__VmSpec *good = spec();
    assert_int_equal(validate_vm_spec(good, &err), 0);
    pb_free(good);
    assert_int_equal(validate_vm_spec(NULL, &err), -1);

    REFUSES(pb_string(&s->name, "Web"), "name");
    REFUSES(s->vcpus = 0, "vCPU");
    REFUSES(s->vcpus = 129, "vCPU");
    REFUSES(s->memory_bytes = 15u << 20, "memory");
    REFUSES(s->memory_bytes = (16u << 20) + 4096, "memory");
    REFUSES(s->memory_bytes = (4ull << 40) + (1u << 20), "memory");
    REFUSES(pb_string(&s->disks[0]->path, "web.img"), "absolute");
    REFUSES(pb_string(&s->disks[0]->path, "/srv/../etc/shadow"), "..");
    REFUSES(pb_string(&s->disks[0]->path, "/.."), "..");
    REFUSES(pb_string(&s->disks[0]->path, "/srv/a\nb"), "control");
    REFUSES(pb_string(&s->disks[0]->path, too_long()), "bytes");
    REFUSES(pb_string(&s->disks[0]->format, "vmdk"), "vmdk");
    REFUSES(pb_string(&s->disks[0]->cache, "unsafe"), "unsafe");
    REFUSES(pb_string(&s->disks[0]->aio, "posix"), "posix");
    REFUSES(pb_string(&s->disks[0]->aio, "io_uring"), "cache none");
    REFUSES(
        {
            PB_ADD(s, disks, pb_new(&drover__disk__descriptor));
            pb_string(&s->disks[1]->path, "/srv/web-1.img");
        },
        "twice");
    REFUSES(for (int i = 0; i < VALIDATE_DISKS_MAX; i++) PB_ADD(s, disks, pb_new(&drover__disk__descriptor));
            , "too many");
}

static void cards_and_what_boots(void **unused)
{
    (void)unused;
    REFUSES(for (int i = 0; i < VALIDATE_NICS_MAX; i++) PB_ADD(s, nics, pb_new(&drover__nic__descriptor));, "too many");
    REFUSES(pb_string(&s->nics[0]->mac, "52:54:00:12:34"), "MAC");
    REFUSES(pb_string(&s->nics[0]->mac, "52-54-00-12-34-56"), "MAC");
    REFUSES(pb_string(&s->nics[0]->mac, "53:54:00:12:34:56"), "multicast");
    REFUSES(pb_string(&s->nics[0]->mac, "00:00:00:00:00:00"), "MAC");
    REFUSES(pb_string(&s->nics[0]->network, "No Such"), "network");
    REFUSES(pb_string(&s->kernel, "vmlinuz"), "absolute");
    REFUSES(pb_string(&s->kernel, ""), "needs a kernel");
    REFUSES(pb_string(&s->cmdline, too_long()), "bytes");
    REFUSES(pb_string(&s->cmdline, "a\x1b"
                                   "b"),
        "control");
    REFUSES(pb_string(&s->cpu_model, "max -device x"), "CPU model");
    REFUSES(pb_string(&s->cpu_model, too_long()), "CPU model");
    REFUSES(pb_string(&s->machine_type, "q35"), "machine type");
    REFUSES(pb_string(&s->machine_type, "pc-q35-7.2 -device x"), "machine type");
    REFUSES(s->max_downtime_ms = LIMITS_DOWNTIME_MS + 1, "downtime");
    REFUSES(s->migration_mode = (Drover__MigrationMode)5, "unknown mode");
    REFUSES(s->on_no_convergence = (Drover__MigrationStuck)-1, "unknown answer");
    REFUSES(
        {
            pb_free(s->disks[0]);
            s->n_disks = 0;
            pb_string(&s->kernel, "");
        },
        "nothing to boot");
}

static void migration_options(void **unused)
{
    (void)unused;
    struct err err;
    Drover__MigrationOptions o = DROVER__MIGRATION_OPTIONS__INIT;
    assert_int_equal(validate_migration_options(NULL, &err), 0);
    assert_int_equal(validate_migration_options(&o, &err), 0);
    o.bandwidth_bytes_per_s = 1000;
    assert_int_equal(validate_migration_options(&o, &err), -1);
    o.bandwidth_bytes_per_s = 1u << 20;
    o.max_rounds = 1001;
    assert_int_equal(validate_migration_options(&o, &err), -1);
    o.max_rounds = 0;
    o.max_downtime_ms = LIMITS_DOWNTIME_MS + 1;
    assert_int_equal(validate_migration_options(&o, &err), -1);
}

static void vm_set(void **unused)
{
    (void)unused;
    struct err err;
    Drover__VmSetRequest r = DROVER__VM_SET_REQUEST__INIT;
    r.name = (char *)"web";
    assert_int_equal(validate_vm_set(&r, &err), -1);
    assert_non_null(strstr(err.message, "nothing to change"));
    r.migration_mode = DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID;
    assert_int_equal(validate_vm_set(&r, &err), 0);
    r.on_no_convergence = (Drover__MigrationStuck)9;
    assert_int_equal(validate_vm_set(&r, &err), -1);
    r.on_no_convergence = DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE;
    r.max_downtime_ms = LIMITS_DOWNTIME_MS;
    assert_int_equal(validate_vm_set(&r, &err), 0);
    r.max_downtime_ms++;
    assert_int_equal(validate_vm_set(&r, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(addresses),
        cmocka_unit_test(texts),
        cmocka_unit_test(size_and_disks),
        cmocka_unit_test(cards_and_what_boots),
        cmocka_unit_test(migration_options),
        cmocka_unit_test(vm_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
