/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "proto/trackers.h"

static void which_names_there_are(void **unused)
{
    (void)unused;
    assert_true(trackers_any("") && trackers_any("auto"));
    assert_false(trackers_any("qemu") || trackers_any("automatic") || trackers_any("none"));
    assert_true(trackers_known("") && trackers_known("auto") && trackers_known("wp-async"));
    assert_true(trackers_known("wp-sync") && trackers_known("qemu"));
    assert_false(trackers_known("none") || trackers_known("wp") || trackers_known("QEMU") || trackers_known("qemu "));
}

static void who_has_the_better_has_the_others(void **unused)
{
    (void)unused;
    static const char *const kinds[] = {"wp-async", "wp-sync", "qemu"};
    for (int best = 0; best < 3; best++)
        for (int name = 0; name < 3; name++)
            assert_int_equal(trackers_had(kinds[best], kinds[name]), best <= name);
}

/* A host of a later version may have one that is not known here. */
static void what_is_unknown_ranks_nowhere(void **unused)
{
    (void)unused;
    assert_true(trackers_had("wp-later", "wp-later"));
    assert_false(trackers_had("wp-later", "wp-async"));
    assert_false(trackers_had("wp-later", "qemu"));
    assert_false(trackers_had("wp-async", "wp-later"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(which_names_there_are),
        cmocka_unit_test(who_has_the_better_has_the_others),
        cmocka_unit_test(what_is_unknown_ranks_nowhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
