/* JSON as YAML: the text, and that nothing changes its type on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "cli/output.h"

static void prints(const char *json, const char *yaml)
{
    cleanup_buf struct buf out = {0};
    json_error_t error;
    json_t *value = json_loads(json, JSON_DECODE_ANY, &error);
    assert_non_null(value);
    yaml_print(value, &out);
    json_decref(value);
    assert_string_equal(buf_str(&out), yaml);
}

static void scalars(void **state)
{
    (void)state;
    prints("42", "42\n");
    prints("-1.5", "-1.5\n");
    prints("true", "true\n");
    prints("null", "null\n");
    prints("{}", "{}\n");
    prints("[]", "[]\n");
    prints("\"web-1\"", "web-1\n");
    prints("\"/srv/vms/a.img\"", "/srv/vms/a.img\n");
}

static void strings_stay_strings(void **state)
{
    (void)state;
    prints("[\"42\",\"\",\"true\",\"No\",\"null\",\"~\",\"-\",\"1e3\",\"a: b\",\"#c\",\" a\",\"a "
           "\",\"*a\",\"0x1f\",\".5\"]",
        "- \"42\"\n- \"\"\n- \"true\"\n- \"No\"\n- \"null\"\n- \"~\"\n- \"-\"\n- \"1e3\"\n- \"a: b\"\n- \"#c\"\n- \" "
        "a\"\n- \"a \"\n"
        "- \"*a\"\n- \"0x1f\"\n- \".5\"\n");
    prints("[\"a\\nb\",\"say \\\"hi\\\"\",\"back\\\\slash\",\"\\u0007\",\"gr\\u00fcn\"]",
        "- \"a\\nb\"\n- \"say \\\"hi\\\"\"\n- \"back\\\\slash\"\n- \"\\x07\"\n- \"gr\303\274n\"\n");
}

static void nesting(void **state)
{
    (void)state;
    prints("{\"name\":\"a\",\"disks\":[{\"path\":\"/x\",\"ro\":false},{\"path\":\"/"
           "y\",\"opts\":{\"size\":1}}],\"nics\":[],\"yes\":{}}",
        "name: a\n"
        "disks:\n"
        "  - path: /x\n"
        "    ro: false\n"
        "  - path: /y\n"
        "    opts:\n"
        "      size: 1\n"
        "nics: []\n"
        "\"yes\": {}\n");
    prints("[[1,2],[[3]],[]]", "- - 1\n"
                               "  - 2\n"
                               "- - - 3\n"
                               "- []\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),
        cmocka_unit_test(strings_stay_strings),
        cmocka_unit_test(nesting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
