#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "migrate/blind.h"

static struct err err;

static void test_devices(void **state)
{
    (void)state;
    static const char *const blind[] = {"child<vfio-pci>", "child<vhost-user-blk-pci>", "child<vhost-vsock-pci>",
        "child<virtio-mem-pci>", "child<ivshmem-plain>", "child<vhost-vdpa-device-pci>"};
    static const char *const seen[] = {
        "child<virtio-balloon-pci>", "child<virtio-blk-pci>", "child<virtio-net-pci>", "child<nvme>", "string", ""};
    for (size_t i = 0; i < sizeof blind / sizeof *blind; i++) {
        assert_int_equal(blind_check_device("dev7", blind[i], &err), -1);
        assert_int_equal(err.code, ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, "dev7"));
    }
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++)
        assert_int_equal(blind_check_device("dev7", seen[i], &err), 0);
}

static void test_blocks(void **state)
{
    (void)state;
    assert_int_equal(blind_check_block("disk0", "nvme", &err), -1);
    assert_non_null(strstr(err.message, "disk0"));
    assert_int_equal(blind_check_block("disk0", "virtio-blk-vhost-user", &err), -1);
    assert_int_equal(blind_check_block("disk0", "file", &err), 0);
    assert_int_equal(blind_check_block("disk0", "host_device", &err), 0);
}

static void test_network(void **state)
{
    (void)state;
    assert_int_equal(
        blind_check_network("vnic0: index=0,type=nic\r\n \\ net0: index=0,type=tap,ifname=dv0\r\n", &err), 0);
    assert_int_equal(blind_check_network("vnic0: index=0,type=nic\r\n \\ net0: index=0,type=vhost-user\r\n", &err), -1);
    assert_non_null(strstr(err.message, "vhost-user"));
}

static void test_process(void **state)
{
    (void)state;
    assert_int_equal(blind_check_process(getpid(), &err), 0);
    assert_int_equal(blind_check_process(4194303, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_network),
        cmocka_unit_test(test_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
