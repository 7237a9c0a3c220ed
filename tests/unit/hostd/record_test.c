/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <string.h>

#include "base/cleanup.h"
#include "hostd/partition/record.h"
#include "tests/unit/hostd/specs.h"

static struct record sample(struct specs *specs)
{
    specs_make(specs);
    struct record r = {
        .generation = 7,
        .state = STATE_OUTGOING,
        .spec = spec_copy(&specs->spec),
        .guest = {1234, 99887766},
        .uptime_base_ms = 5000,
        .uptime_from_ms = 123456789,
        .stop_by_ms = 42,
        .migration = {.id = "m-17",
            .generation = 8,
            .bandwidth_bytes_per_s = 12500000,
            .to_host = "h2",
            .address = "tcp://10.0.0.2:4711",
            .engine = {77, 88}},
        .storage = {.id = SPECS_VM_ID,
            .where = {UINT64_MAX, 9},
            .disk = 0,
            .source = "/disks/a.raw",
            .target = "/fast/a \"b\".qcow2",
            .format = "qcow2",
            .shallow = true,
            .bandwidth_bytes_per_s = 1 << 20},
    };
    strcpy(r.vm_id, SPECS_VM_ID);
    strcpy(r.boot_id, "b00t");
    strcpy(r.detail, "said \"no\"");
    return r;
}

static int parse(const char *text, struct record *out)
{
    struct err err;
    int rc = record_parse(text, strlen(text), &err, out);
    if (rc < 0)
        assert_true(err.message[0] != '\0');
    return rc;
}

static void what_is_written_is_read(void **unused)
{
    (void)unused;
    struct specs specs;
    struct record r = sample(&specs), back;
    cleanup_free char *text = record_format(&r);
    assert_int_equal(parse(text, &back), 0);
    assert_string_equal(back.vm_id, SPECS_VM_ID);
    assert_int_equal(back.generation, 7);
    assert_int_equal(back.state, STATE_OUTGOING);
    assert_int_equal(back.guest.pid, 1234);
    assert_int_equal(back.guest.start_ticks, 99887766);
    assert_int_equal(back.uptime_base_ms, 5000);
    assert_int_equal(back.uptime_from_ms, 123456789);
    assert_int_equal(back.stop_by_ms, 42);
    assert_string_equal(back.detail, r.detail);
    assert_string_equal(back.migration.id, "m-17");
    assert_string_equal(back.storage.id, SPECS_VM_ID);
    assert_string_equal(back.storage.source, r.storage.source);
    assert_string_equal(back.storage.target, r.storage.target);
    assert_string_equal(back.storage.format, "qcow2");
    assert_true(back.storage.shallow);
    assert_true(back.storage.where.file_system == UINT64_MAX && back.storage.where.inode == 9);
    assert_int_equal(back.storage.bandwidth_bytes_per_s, 1 << 20);
    assert_false(back.migration.incoming);
    assert_int_equal(back.migration.generation, 8);
    assert_int_equal(back.migration.bandwidth_bytes_per_s, 12500000);
    assert_string_equal(back.migration.to_host, "h2");
    assert_string_equal(back.migration.address, "tcp://10.0.0.2:4711");
    assert_int_equal(back.migration.engine.pid, 77);
    assert_string_equal(back.spec->name, "web-1");
    assert_string_equal(back.spec->disks[0]->path, "/srv/disks/web,1.img");
    assert_string_equal(back.spec->nics[0]->mac, "52:54:00:12:34:56");
    assert_int_equal(back.spec->memory_bytes, 256ull << 20);
    cleanup_free char *again = record_format(&back);
    assert_string_equal(text, again);
    record_clear(&back);
    record_clear(&r);
}

/* Replaces `old` by `new` in a good record and expects it to be refused. */
static void expect_refused(const char *old, const char *new)
{
    struct specs specs;
    struct record r = sample(&specs), back;
    cleanup_free char *text = record_format(&r);
    char *at = strstr(text, old);
    assert_non_null(at);
    cleanup_free char *bad = mem_printf("%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    if (parse(bad, &back) == 0)
        fail_msg("accepted %s for %s", new, old);
    record_clear(&r);
}

static void nonsense_is_refused(void **unused)
{
    (void)unused;
    expect_refused("\"version\": 1", "\"version\": 2");
    expect_refused(SPECS_VM_ID, "../../../../etc/passwd");
    expect_refused("\"generation\": 7", "\"generation\": 0");
    expect_refused("\"generation\": 7", "\"generation\": -7");
    expect_refused("\"outgoing\"", "\"none\"");
    expect_refused("\"outgoing\"", "\"flying\"");
    expect_refused("\"outgoing\"", "3");
    expect_refused("\"pid\": 1234", "\"pid\": 1");
    expect_refused("\"pid\": 1234", "\"pid\": -1");
    expect_refused("\"pid\": 1234", "\"pid\": 99999999999");
    expect_refused("\"start_ticks\": 99887766", "\"start_ticks\": \"x\"");
    expect_refused("\"m-17\"", "\"..\"");
    expect_refused("\"m-17\"", "\"\"");
    expect_refused("\"memory_bytes\": 268435456", "\"memory_bytes\": 268435457");
    expect_refused("\"vcpus\": 2", "\"vcpus\": 0");
    expect_refused("52:54:00:12:34:56", "52:54:00:12:34");
    expect_refused("/srv/disks/web,1.img", "srv/disks");
    expect_refused("\"uptime_from_ms\": 123456789", "\"uptime_from_ms\": -1");
}

static void no_prefix_is_a_record(void **unused)
{
    (void)unused;
    struct specs specs;
    struct record r = sample(&specs), back;
    cleanup_free char *text = record_format(&r);
    struct err err;
    for (size_t len = 0; len < strlen(text); len++)
        assert_int_equal(record_parse(text, len, &err, &back), -1);
    record_clear(&r);
}

static void a_migrating_state_needs_its_migration(void **unused)
{
    (void)unused;
    struct specs specs;
    struct record r = sample(&specs), back;
    static const enum partition_state states[] = {STATE_INCOMING, STATE_OUTGOING, STATE_IN_DOUBT};
    r.migration.id[0] = '\0';
    for (size_t i = 0; i < 3; i++) {
        r.state = states[i];
        cleanup_free char *text = record_format(&r);
        assert_int_equal(parse(text, &back), -1);
    }
    r.state = STATE_RUNNING;
    cleanup_free char *text = record_format(&r);
    assert_int_equal(parse(text, &back), 0);
    record_clear(&back);
    record_clear(&r);
}

static void specs_are_bounded(void **unused)
{
    (void)unused;
    struct specs s;
    struct err err;
    specs_make(&s);
    assert_int_equal(spec_check(&s.spec, &err), 0);
#define REFUSED(change)                                                                                                \
    do {                                                                                                               \
        specs_make(&s);                                                                                                \
        change;                                                                                                        \
        assert_int_equal(spec_check(&s.spec, &err), -1);                                                               \
    } while (0)
    REFUSED(s.spec.name = (char *)"");
    REFUSED(s.spec.name = (char *)"-web");
    REFUSED(s.spec.name = (char *)"web,debug-threads=off");
    REFUSED(s.spec.vcpus = 256);
    REFUSED(s.spec.memory_bytes = 1 << 20);
    REFUSED(s.spec.kernel = (char *)""); /* with an initrd */
    REFUSED(s.spec.cmdline = (char *)"a\nb");
    REFUSED(s.spec.cmdline = (char *)"not UTF-8: \xff\xfe");
    REFUSED(s.spec.cpu_model = (char *)"host -drive");
    REFUSED(s.spec.machine_type = (char *)"q35");
    REFUSED(s.spec.machine_type = (char *)"pc-q35-7.2,dump-guest-core=on");
    REFUSED(s.disk.path = (char *)"/a\x01");
    REFUSED(s.disk.format = (char *)"vmdk");
    REFUSED(s.disk.cache = (char *)"unsafe");
    REFUSED(s.disk.aio = (char *)"native"); /* needs cache none */
    REFUSED(s.nic.mac = (char *)"01:00:5e:00:00:01");
    REFUSED(s.nic.network = (char *)"br0,script=/bin/sh");
    REFUSED(s.spec.n_nics = SPEC_NICS_MAX + 1);
#undef REFUSED
}

static void ids_become_file_names(void **unused)
{
    (void)unused;
    assert_true(paths_vm_id_ok(SPECS_VM_ID));
    assert_false(paths_vm_id_ok("0F4D6A2E-1C5B-4A39-9E87-3B2A1C0D9E8F"));
    assert_false(paths_vm_id_ok("0f4d6a2e-1c5b-4a39-9e87-3b2a1c0d9e8"));
    assert_false(paths_vm_id_ok("0f4d6a2e/1c5b-4a39-9e87-3b2a1c0d9e8f"));
    assert_true(paths_migration_id_ok("job-17.2_a"));
    assert_false(paths_migration_id_ok(""));
    assert_false(paths_migration_id_ok("."));
    assert_false(paths_migration_id_ok("a/b"));
    assert_false(paths_migration_id_ok("0123456789012345678901234567890123456789012345678901234567890123"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(no_prefix_is_a_record),
        cmocka_unit_test(a_migrating_state_needs_its_migration),
        cmocka_unit_test(specs_are_bounded),
        cmocka_unit_test(ids_become_file_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
