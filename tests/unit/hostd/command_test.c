/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <jansson.h>
#include <string.h>

#include "hostd/hypervisor/qemu/command.h"
#include "tests/unit/hostd/specs.h"

static const char *const taps[SPEC_NICS_MAX] = {"dv0", "dv1", "dv2", "dv3", "dv4", "dv5", "dv6", "dv7"};

static struct command_config config_of(const struct specs *s)
{
    return (struct command_config){
        .program = "qemu-system-x86_64",
        .vm_id = SPECS_VM_ID,
        .spec = &s->spec,
        .accelerator = "tcg",
        .tcg_cache_mb = 64,
        .ram_path = "/dev/shm/drover/a,b.ram",
        .serial_log = "/run/drover/serial.log",
        .qmp_fd = 5,
        .qmp_engine_fd = 6,
        .serial_fd = 7,
        .taps = taps,
    };
}

/* The value after an option; NULL: it is not there. `nth` counts from 0. */
static const char *value_of(char **argv, const char *option, int nth)
{
    for (; *argv; argv++)
        if (strcmp(*argv, option) == 0 && nth-- == 0)
            return argv[1];
    return NULL;
}

static bool has(char **argv, const char *arg)
{
    for (; *argv; argv++)
        if (strcmp(*argv, arg) == 0)
            return true;
    return false;
}

static const char *device(char **argv, const char *id)
{
    for (int i = 0; value_of(argv, "-device", i); i++)
        if (strstr(value_of(argv, "-device", i), id))
            return value_of(argv, "-device", i);
    return NULL;
}

static void a_guest_as_it_should_be(void **unused)
{
    (void)unused;
    struct specs s;
    specs_make(&s);
    struct command_config config = config_of(&s);
    char **argv = command_build(&config);
    assert_string_equal(argv[0], "qemu-system-x86_64");
    assert_string_equal(value_of(argv, "-machine", 0), "q35,hpet=off,suppress-vmdesc=on,memory-backend=ram");
    assert_string_equal(value_of(argv, "-accel", 0), "tcg,thread=multi,tb-size=64");
    assert_string_equal(value_of(argv, "-cpu", 0), "max");
    assert_string_equal(value_of(argv, "-smp", 0), "2");
    assert_string_equal(value_of(argv, "-m", 0), "size=268435456B");
    assert_string_equal(value_of(argv, "-object", 0),
        "memory-backend-file,id=ram,size=268435456,mem-path=/dev/shm/drover/a,,b.ram,share=on,prealloc=off");
    assert_string_equal(value_of(argv, "-uuid", 0), SPECS_VM_ID);
    assert_string_equal(value_of(argv, "-kernel", 0), "/srv/vmlinux");
    assert_string_equal(value_of(argv, "-append", 0), "console=ttyS0 quiet");
    assert_string_equal(value_of(argv, "-chardev", 0), "socket,id=qmp,fd=5,server=on,wait=off");
    assert_string_equal(value_of(argv, "-chardev", 1), "socket,id=qmp-engine,fd=6,server=on,wait=off");
    assert_true(has(argv, "-nodefaults"));
    assert_true(strncmp(value_of(argv, "-sandbox", 0), "on,", 3) == 0);
    assert_false(has(argv, "-S"));
    assert_false(has(argv, "-incoming"));
    command_free(argv);
}

static void disks_go_through_the_page_cache_unless_asked(void **unused)
{
    (void)unused;
    struct specs s;
    specs_make(&s);
    struct command_config config = config_of(&s);
    char **argv = command_build(&config);
    json_t *file = json_loads(value_of(argv, "-blockdev", 0), 0, NULL);
    json_t *node = json_loads(value_of(argv, "-blockdev", 1), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(file, "filename")), "/srv/disks/web,1.img");
    assert_string_equal(json_string_value(json_object_get(file, "aio")), "threads");
    assert_string_equal(json_string_value(json_object_get(file, "locking")), "on");
    assert_string_equal(json_string_value(json_object_get(node, "driver")), "qcow2");
    assert_true(json_is_false(json_object_get(json_object_get(file, "cache"), "direct")));
    assert_true(json_is_false(json_object_get(json_object_get(node, "cache"), "direct")));
    json_decref(file);
    json_decref(node);
    assert_null(strstr(device(argv, "vdisk0"), "bootindex"));
    command_free(argv);

    s.spec.kernel = s.spec.initrd = s.spec.cmdline = (char *)"";
    argv = command_build(&config);
    assert_non_null(strstr(device(argv, "vdisk0"), "bootindex=0"));
    assert_null(value_of(argv, "-kernel", 0));
    command_free(argv);
}

static void direct_disks_and_a_balloon(void **unused)
{
    (void)unused;
    struct specs s;
    specs_make(&s);
    struct command_config config = config_of(&s);
    char **argv = command_build(&config);
    assert_null(device(argv, "balloon"));
    command_free(argv);
    s.disk.cache = (char *)"none";
    s.disk.aio = (char *)"native";
    s.spec.balloon = true;
    argv = command_build(&config);
    for (int i = 0; i < 2; i++) {
        json_t *node = json_loads(value_of(argv, "-blockdev", i), 0, NULL);
        assert_true(json_is_true(json_object_get(json_object_get(node, "cache"), "direct")));
        if (i == 0)
            assert_string_equal(json_string_value(json_object_get(node, "aio")), "native");
        json_decref(node);
    }
    assert_non_null(strstr(device(argv, "id=balloon"), "free-page-reporting=on"));
    command_free(argv);
}

/* Both sides of a migration must have the same devices at the same addresses; only what is the host's own may differ.
 */
static void both_sides_are_equal(void **unused)
{
    (void)unused;
    static const char *const other_taps[] = {"dvf"};
    struct specs s;
    specs_make(&s);
    struct command_config source = config_of(&s), destination = config_of(&s);
    destination.incoming = true;
    destination.taps = other_taps;
    destination.ram_path = "/elsewhere/x.ram";
    destination.qmp_fd = 15;
    char **a = command_build(&source), **b = command_build(&destination);
    static const char *const same[] = {"-machine", "-accel", "-cpu", "-smp", "-m", "-uuid", "-serial"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_string_equal(value_of(a, same[i], 0), value_of(b, same[i], 0));
    for (int i = 0; value_of(a, "-device", i); i++)
        assert_string_equal(value_of(a, "-device", i), value_of(b, "-device", i));
    assert_string_equal(value_of(b, "-incoming", 0), "defer");
    assert_true(has(b, "-S"));
    assert_string_equal(value_of(b, "-netdev", 0), "tap,id=net0,ifname=dvf,script=no,downscript=no,vhost=off");
    command_free(a);
    command_free(b);
}

static void every_device_has_its_own_address(void **unused)
{
    (void)unused;
    struct specs s;
    Drover__Disk *disks[SPEC_DISKS_MAX];
    Drover__Nic *nics[SPEC_NICS_MAX];
    specs_make(&s);
    for (size_t i = 0; i < SPEC_DISKS_MAX; i++)
        disks[i] = &s.disk;
    for (size_t i = 0; i < SPEC_NICS_MAX; i++)
        nics[i] = &s.nic;
    s.spec.disks = disks;
    s.spec.n_disks = SPEC_DISKS_MAX;
    s.spec.nics = nics;
    s.spec.n_nics = SPEC_NICS_MAX;
    s.spec.balloon = true;
    struct command_config config = config_of(&s);
    char **argv = command_build(&config);
    unsigned long seen = 0;
    int count = 0;
    for (; value_of(argv, "-device", count); count++) {
        const char *at = strstr(value_of(argv, "-device", count), "addr=0x");
        assert_non_null(at);
        unsigned long slot = strtoul(at + 7, NULL, 16);
        assert_true(slot >= 2 && slot < 0x1f);
        assert_false(seen & (1ul << slot));
        seen |= 1ul << slot;
    }
    assert_int_equal(count, 1 + SPEC_DISKS_MAX + SPEC_NICS_MAX);
    command_free(argv);
}

static void kvm_and_models(void **unused)
{
    (void)unused;
    struct specs s;
    specs_make(&s);
    struct command_config config = config_of(&s);
    config.accelerator = "kvm";
    char **argv = command_build(&config);
    assert_string_equal(value_of(argv, "-accel", 0), "kvm");
    assert_string_equal(value_of(argv, "-cpu", 0), "host");
    command_free(argv);
    s.spec.cpu_model = (char *)"Skylake-Server";
    s.spec.machine_type = (char *)"pc-q35-7.2";
    argv = command_build(&config);
    assert_string_equal(value_of(argv, "-cpu", 0), "Skylake-Server");
    assert_true(strncmp(value_of(argv, "-machine", 0), "pc-q35-7.2,", 11) == 0);
    command_free(argv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_as_it_should_be),
        cmocka_unit_test(disks_go_through_the_page_cache_unless_asked),
        cmocka_unit_test(direct_disks_and_a_balloon),
        cmocka_unit_test(both_sides_are_equal),
        cmocka_unit_test(every_device_has_its_own_address),
        cmocka_unit_test(kvm_and_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
