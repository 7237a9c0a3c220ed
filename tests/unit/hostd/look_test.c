/* What tells two files of one path apart. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostd/look.h"

static void a_file_has_its_birth(void **unused)
{
    (void)unused;
    char path[] = "/tmp/look-XXXXXX";
    struct look look, again;
    struct statx st;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    look_at(path, true, &look);
    assert_string_equal(look.problem, "");
    assert_true(look.inode != 0 && look.bytes == 4096 && !look.locked);
    assert_string_equal(look.device, "");
    assert_int_equal(statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st), 0);
    assert_true((look.born_ms != 0) == ((st.stx_mask & STATX_BTIME) != 0));
    assert_int_equal(write(fd, "x", 1), 1); /* what is written later leaves it */
    look_at(path, true, &again);
    assert_true(again.born_ms == look.born_ms && again.inode == look.inode);
    close(fd);
    unlink(path);
}

static void what_is_not_there_has_nothing(void **unused)
{
    (void)unused;
    struct look look;
    look_at("/tmp/look-that-is-not-there", false, &look);
    assert_true(look.problem[0] && !look.inode && !look.born_ms && !look.device[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_has_its_birth),
        cmocka_unit_test(what_is_not_there_has_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
