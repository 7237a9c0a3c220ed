/* What QEMU said last, as people are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hostd/hypervisor/qemu/words.h"

static void lines(void **unused)
{
    (void)unused;
    static const struct {
        const char *line, *expected;
    } table[] = {
        {"", ""},
        {"qemu-system-x86_64: -blockdev {\"driver\":\"qcow2\",\"node-name\":\"disk0\",\"cache\":{\"direct\":false}}: "
         "Image is not in qcow2 format",
            "disk0: Image is not in qcow2 format; 'qemu-img info' says what it is: name that with format="},
        {"Is another process using the image [/srv/a.raw]?",
            "Is another process using the image [/srv/a.raw]?; a disk that is written to is one VM's alone"},
        {"qemu-system-x86_64: -device virtio-net-pci,id=vnic0: no such thing: at all", "no such thing: at all"},
        {"qemu-system-x86_64: cannot set up guest memory", "cannot set up guest memory"},
        {"qemu-system-x86_64: -blockdev {\"node-name\":\"disk0\"", "-blockdev {\"node-name\":\"disk0\""},
        {"qemu-system-x86_64", "qemu-system-x86_64"},
        {"sandbox: \"node-name\":\"disk0\"", "sandbox: \"node-name\":\"disk0\""},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char out[256];
        words_explain(table[i].line, sizeof out, out);
        assert_string_equal(out, table[i].expected);
    }
    char small[8];
    words_explain("qemu-system-x86_64: a long story", sizeof small, small);
    assert_string_equal(small, "a long ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
