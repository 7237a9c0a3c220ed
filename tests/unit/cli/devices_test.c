/* Values with parts of their own: disks, NICs, controllers, keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/cmd_vm.h"
#include "cli/keyarg.h"

static struct err err;

static void disks(void **state)
{
    (void)state;
    Drover__Disk disk;
    assert_int_equal(vm_disk_parse("/srv/a.img", &err, &disk), 0);
    assert_string_equal(disk.path, "/srv/a.img");
    assert_string_equal(disk.format, "raw");
    assert_false(disk.read_only);
    vm_disk_free(&disk);
    assert_int_equal(vm_disk_parse("/srv/a,format=qcow2,read-only", &err, &disk), 0);
    assert_string_equal(disk.path, "/srv/a");
    assert_string_equal(disk.format, "qcow2");
    assert_true(disk.read_only);
    vm_disk_free(&disk);
    assert_int_equal(vm_disk_parse("/srv/a,cache=none,aio=io_uring", &err, &disk), 0);
    assert_string_equal(disk.cache, "none");
    assert_string_equal(disk.aio, "io_uring");
    vm_disk_free(&disk);
    static const char *const bad[] = {"", ",", "a.img", "./a", "/a,", "/a,format=", "/a,format=vmdk", "/a,readonly",
        "/a,format=raw,,", "/a,cache=", "/a,cache=direct", "/a,aio=posix"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(vm_disk_parse(bad[i], &err, &disk), -1);
    char long_path[5000] = "/";
    memset(long_path + 1, 'x', sizeof long_path - 2);
    assert_int_equal(vm_disk_parse(long_path, &err, &disk), -1);
}

/* The words of the flags are the enums' own; what is not given is 0. */
static void policies(void **state)
{
    (void)state;
    struct args args;
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    char *words[] = {(char *)"vm", (char *)"set", (char *)"web", (char *)"--migration-mode", (char *)"hybrid",
        (char *)"--on-no-convergence", (char *)"throttle", (char *)"--max-downtime", (char *)"12"};
    assert_int_equal(args_parse(cmd_vm, 5, words, &err, &args), 0);
    vm_policy_read(&args, "migration-mode", &spec);
    assert_int_equal(spec.migration_mode, DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID);
    assert_int_equal(spec.on_no_convergence, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_DEFAULT);
    assert_int_equal(spec.max_downtime_ms, 0);
    assert_int_equal(args_parse(cmd_vm, 9, words, &err, &args), 0);
    vm_policy_read(&args, "migration-mode", &spec);
    assert_int_equal(spec.on_no_convergence, DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE);
    assert_int_equal(spec.max_downtime_ms, 12);
    words[4] = (char *)"default";
    assert_int_equal(args_parse(cmd_vm, 9, words, &err, &args), -1);
}

static void nics(void **state)
{
    (void)state;
    Drover__Nic nic;
    static const struct {
        const char *text, *network, *mac;
    } good[] = {{"", "", ""}, {"default", "", ""}, {"lan", "lan", ""},
        {",mac=52:54:00:ab:CD:01", "", "52:54:00:ab:CD:01"}, {"lan,mac=02:00:00:00:00:01", "lan", "02:00:00:00:00:01"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(vm_nic_parse(good[i].text, &err, &nic), 0);
        assert_string_equal(nic.network, good[i].network);
        assert_string_equal(nic.mac, good[i].mac);
        vm_nic_free(&nic);
    }
    static const char *const bad[] = {"lan,", "lan,mac=", "lan,mac=52:54:00:12:34", "lan,mac=52:54:00:12:34:5g",
        "lan,mac=52:54:00:12:34:567", "lan,mac=01:00:5e:00:00:01", "lan,mac=52-54-00-12-34-56", "lan,vlan=3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(vm_nic_parse(bad[i], &err, &nic), -1);
}

static void keys(void **state)
{
    (void)state;
    char dir[] = "/tmp/drover-keys-XXXXXX", path[64], file[80], text[KEY_TEXT], out[KEY_TEXT];
    struct key_pair key;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a", dir);
    assert_int_equal(key_generate(&err, &key), 0);
    assert_int_equal(key_save(path, &key, &err), 0);
    key_format(key.public_key, text);
    assert_int_equal(keyarg_read(text, &err, out), 0);
    assert_string_equal(out, text);
    snprintf(file, sizeof file, "%s.pub", path);
    assert_int_equal(keyarg_read(file, &err, out), 0);
    assert_string_equal(out, text);
    snprintf(file, sizeof file, "%s.key", path);
    assert_int_equal(keyarg_read(file, &err, out), -1); /* the secret one is not for others */
    assert_non_null(strstr(err.message, "secret"));
    assert_int_equal(keyarg_read("nonsense", &err, out), -1);
    assert_int_equal(keyarg_read("", &err, out), -1);
    unlink(file);
    snprintf(file, sizeof file, "%s.pub", path);
    unlink(file);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks),
        cmocka_unit_test(nics),
        cmocka_unit_test(policies),
        cmocka_unit_test(keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
