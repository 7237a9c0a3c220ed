/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "storage/place.h"

#define ID "0a1b2c3d-0000-4000-8000-000000000000"

/* A directory with "in" (allowed), "out" (not), in/disk.raw, and in/link -> ../out. */
static char top[64], allowed[128], disk[128], target[128];

/* What the next look at a name fails with; 0: nothing. */
static int look_fails;

int __real_fstatat(int directory, const char *name, struct stat *st, int flags);
int __wrap_fstatat(int directory, const char *name, struct stat *st, int flags);
int __wrap_fstatat(int directory, const char *name, struct stat *st, int flags)
{
    if (!look_fails)
        return __real_fstatat(directory, name, st, flags);
    errno = look_fails;
    return -1;
}

/* As it is asked after a move whose beginning saw the directory that is there now. */
static int committed(const char *id)
{
    struct place_where where;
    struct err err = {.code = ERR_NONE};
    assert_int_equal(place_where(target, &err, &where), 0);
    int rc = place_committed(target, id, where, &err);
    assert_int_equal(err.code, rc < 0 ? ERR_UNAVAILABLE : ERR_NONE);
    return rc;
}

static void put(const char *path, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(write(fd, "old", 3), 3);
    close(fd);
}

static int begin(void **unused)
{
    char path[128];
    (void)unused;
    strcpy(top, "/tmp/drover-place-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(allowed, sizeof allowed, "%s/in", top);
    snprintf(disk, sizeof disk, "%s/in/disk.raw", top);
    snprintf(target, sizeof target, "%s/in/new.raw", top);
    assert_int_equal(mkdir(allowed, 0700), 0);
    snprintf(path, sizeof path, "%s/out", top);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/in/link", top);
    assert_int_equal(symlink("../out", path), 0);
    put(disk, 0640);
    return 0;
}

static int end(void **unused)
{
    struct err err;
    (void)unused;
    return file_remove_tree(top, &err);
}

static enum err_code asked(const char *directories, const char *below, char out[static PATH_MAX])
{
    char path[256];
    struct err err = {.code = ERR_NONE};
    snprintf(path, sizeof path, "%s/%s", top, below);
    if (place_target(directories, disk, path, &err, out) == 0)
        return ERR_NONE;
    assert_true(err.message[0] != '\0');
    return err.code;
}

static void only_where_disks_may_be(void **unused)
{
    (void)unused;
    char out[PATH_MAX], expected[128], two[300];
    assert_int_equal(asked(allowed, "in/new.raw", out), ERR_NONE);
    assert_string_equal(out, target);
    assert_int_equal(asked(allowed, "out/new.raw", out), ERR_DENIED);
    assert_int_equal(asked(allowed, "in/../out/new.raw", out), ERR_DENIED);
    assert_int_equal(asked(allowed, "in/link/new.raw", out), ERR_DENIED); /* links are followed first */
    assert_int_equal(asked(allowed, "inside/new.raw", out), ERR_NOT_FOUND);
    assert_int_equal(asked("", "in/new.raw", out), ERR_UNSUPPORTED);
    assert_int_equal(asked(allowed, "in/..", out), ERR_DENIED); /* a directory: the one above */
    snprintf(two, sizeof two, "/nonexistent\n%s", allowed);
    assert_int_equal(asked(two, "out/../in/new.raw", out), ERR_NONE);
    assert_string_equal(out, target);
    /* A directory that begins alike is another one. */
    snprintf(two, sizeof two, "%s/inner", top);
    assert_int_equal(mkdir(two, 0700), 0);
    assert_int_equal(asked(allowed, "inner/new.raw", out), ERR_DENIED);
    snprintf(two, sizeof two, "%s/in/sub", top);
    assert_int_equal(mkdir(two, 0700), 0);
    assert_int_equal(asked(allowed, "in/sub/", out), ERR_NONE);
    snprintf(expected, sizeof expected, "%s/in/sub/disk.raw", top);
    assert_string_equal(out, expected);
    assert_int_equal(asked(allowed, "in/sub", out), ERR_NONE);
    assert_string_equal(out, expected);
}

static void nothing_is_overwritten(void **unused)
{
    (void)unused;
    char out[PATH_MAX], partial[PATH_MAX];
    struct err err;
    assert_int_equal(asked(allowed, "in/disk.raw", out), ERR_EXISTS);
    assert_int_equal(asked(allowed, "in/", out), ERR_EXISTS); /* would be the disk itself */
    char link_path[128];
    snprintf(link_path, sizeof link_path, "%s/in/dangling", top);
    assert_int_equal(symlink("nowhere", link_path), 0);
    assert_int_equal(asked(allowed, "in/dangling", out), ERR_EXISTS);
    /* A file that comes into being while the disk is copied wins. */
    assert_int_equal(place_make(target, ID, disk, &err), 0);
    put(target, 0600);
    assert_int_equal(place_commit(target, ID, &err), -1);
    assert_int_equal(committed(ID), 0);
    place_forget(target, ID);
    assert_int_equal(access(target, F_OK), 0);
    assert_int_equal(access(place_partial(target, ID, partial), F_OK), -1);
    assert_int_equal(place_make(target, ID, disk, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
}

static void the_files_tell(void **unused)
{
    (void)unused;
    struct err err;
    struct stat st;
    char partial[PATH_MAX];
    assert_int_equal(committed(ID), 0);
    assert_int_equal(place_make(target, ID, disk, &err), 0);
    assert_int_equal(stat(place_partial(target, ID, partial), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(committed(ID), 0);
    assert_int_equal(place_make(target, ID, disk, &err), -1); /* never twice */
    assert_int_equal(place_commit(target, ID, &err), 0);
    assert_int_equal(committed(ID), 1);
    assert_int_equal(place_commit(target, ID, &err), 0); /* again is fine */
    assert_int_equal(committed("0a1b2c3d-0000-4000-8000-000000000001"), 0);
    assert_int_equal(place_remove(allowed, disk, target, &err), 0);
    assert_int_equal(access(disk, F_OK), -1);
    assert_int_equal(place_remove(allowed, disk, target, &err), 0); /* again is fine */
    place_forget(target, ID);
    place_forget(target, ID);
    assert_int_equal(access(target, F_OK), 0);
    assert_int_equal(committed(ID), 0);
}

static void called_off(void **unused)
{
    (void)unused;
    struct err err;
    char partial[PATH_MAX];
    assert_int_equal(place_make(target, ID, disk, &err), 0);
    place_forget(target, ID);
    assert_int_equal(access(place_partial(target, ID, partial), F_OK), -1);
    assert_int_equal(access(target, F_OK), -1);
    assert_int_equal(place_commit(target, ID, &err), -1);
}

/* Neither storage that fails nor a file system that is not mounted says "not changed over". */
static void what_cannot_be_seen_is_not_known(void **unused)
{
    (void)unused;
    static const int reasons[] = {EIO, ESTALE, EACCES, ETIMEDOUT};
    char aside[160];
    struct err err;
    struct place_where where;
    assert_int_equal(place_where(target, &err, &where), 0);
    assert_int_equal(place_make(target, ID, disk, &err), 0);
    for (int over = 0; over <= 1; over++) {
        if (over)
            assert_int_equal(place_commit(target, ID, &err), 0);
        assert_int_equal(committed(ID), over);
        for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
            look_fails = reasons[i];
            assert_int_equal(committed(ID), -1);
            look_fails = 0;
        }
        /* The bare mount point, then not even that. */
        snprintf(aside, sizeof aside, "%s/mounted", top);
        assert_int_equal(rename(allowed, aside), 0);
        assert_int_equal(place_committed(target, ID, where, &err), -1);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_int_equal(mkdir(allowed, 0700), 0);
        assert_int_equal(place_committed(target, ID, where, &err), -1);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_non_null(strstr(err.message, "mount"));
        assert_int_equal(rmdir(allowed), 0);
        assert_int_equal(rename(aside, allowed), 0);
    }
    /* The partial file is there: no need to know the directory. Without both, nothing is known. */
    assert_int_equal(place_committed(target, ID, (struct place_where){0}, &err), 1);
    place_forget(target, ID);
    assert_int_equal(place_committed(target, ID, (struct place_where){0}, &err), -1);
    assert_int_equal(place_committed(target, ID, where, &err), 0);
    /* Nor is a file removed that may be the disk. */
    assert_int_equal(place_remove(allowed, disk, "/dev/null/none", &err), -1);
    assert_int_equal(access(disk, F_OK), 0);
}

static void only_old_files_are_removed(void **unused)
{
    (void)unused;
    struct err err;
    char path[128];
    snprintf(path, sizeof path, "%s/out/x", top);
    put(path, 0600);
    assert_int_equal(place_remove(allowed, path, target, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    snprintf(path, sizeof path, "%s/in/link/x", top);
    assert_int_equal(place_remove(allowed, path, target, &err), -1);
    snprintf(path, sizeof path, "%s/in/link", top);
    assert_int_equal(place_remove(allowed, path, target, &err), -1);
    assert_int_equal(place_remove(allowed, disk, disk, &err), -1);
    assert_int_equal(err.code, ERR_WRONG_STATE);
    assert_int_equal(access(disk, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_where_disks_may_be, begin, end),
        cmocka_unit_test_setup_teardown(nothing_is_overwritten, begin, end),
        cmocka_unit_test_setup_teardown(the_files_tell, begin, end),
        cmocka_unit_test_setup_teardown(called_off, begin, end),
        cmocka_unit_test_setup_teardown(what_cannot_be_seen_is_not_known, begin, end),
        cmocka_unit_test_setup_teardown(only_old_files_are_removed, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
