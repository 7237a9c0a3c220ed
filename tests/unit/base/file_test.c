#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/file.h"

/* Every fsync() of base/file.c comes by here (CMakeLists.txt): those of directories are noted, with what was in them.
 */
static struct {
    unsigned count;
    char path[PATH_MAX]; /* of the last */
    bool had;            /* `look_for` was in it */
} synced;
static const char *look_for;

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st;
    char link[64];
    assert_int_equal(fstat(fd, &st), 0);
    if (S_ISDIR(st.st_mode)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, synced.path, sizeof synced.path - 1);
        assert_true(n > 0);
        synced.path[n] = '\0';
        synced.count++;
        synced.had = look_for && faccessat(fd, look_for, F_OK, 0) == 0;
    }
    return __real_fsync(fd);
}

static void watch_for(const char *name)
{
    memset(&synced, 0, sizeof synced);
    look_for = name;
}

/* Somebody else removes first what we are about to remove. */
static bool forestalled;

int __real_remove(const char *path);
int __wrap_remove(const char *path);
int __wrap_remove(const char *path)
{
    if (forestalled)
        (void)!__real_remove(path);
    return __real_remove(path);
}

static char folder[] = "/tmp/drover-file-test-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    struct err err;
    return file_remove_tree(folder, &err);
}

static const char *at(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void written_is_read(void **state)
{
    (void)state;
    struct err err;
    cleanup_buf struct buf b = {0};
    assert_int_equal(file_write(at("a"), "hello", 5, 0600, &err), 0);
    buf_append(&b, "old contents", 12);
    assert_int_equal(file_read(at("a"), 5, &err, &b), 0); /* exactly the bound */
    assert_string_equal(buf_str(&b), "hello");
    assert_int_equal(file_write(at("a"), "", 0, 0600, &err), 0);
    assert_int_equal(file_read(at("a"), 0, &err, &b), 0);
    assert_int_equal(b.len, 0);
}

static void more_than_the_bound_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_buf struct buf b = {0};
    buf_append(&b, "kept", 4);
    assert_int_equal(file_write(at("a"), "hello", 5, 0600, &err), 0);
    assert_int_equal(file_read(at("a"), 4, &err, &b), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(buf_str(&b), "kept");
    assert_int_equal(file_read("/dev/zero", 100000, &err, &b), -1); /* endless: the bound ends it */
    assert_int_equal(file_read(at("none"), 4, &err, &b), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(file_read(folder, 4, &err, &b), -1);
}

static void mode_is_as_asked(void **state)
{
    (void)state;
    struct err err;
    struct stat st;
    mode_t old = umask(0);
    assert_int_equal(file_write(at("m"), "x", 1, 0600, &err), 0);
    umask(0777);
    assert_int_equal(stat(at("m"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(file_write(at("m"), "x", 1, 0640, &err), 0);
    umask(old);
    assert_int_equal(stat(at("m"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

/* A reader that holds the old file goes on seeing it whole, and a failed write leaves the old contents and no litter.
 */
static void replacement_is_atomic(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(file_write(at("r"), "old", 3, 0600, &err), 0);
    cleanup_fd int fd = open(at("r"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(file_write(at("r"), "newer", 5, 0600, &err), 0);
    char text[8] = "";
    assert_int_equal(read(fd, text, sizeof text), 3);
    assert_string_equal(text, "old");

    assert_int_equal(mkdir(at("dir"), 0700), 0);
    assert_int_equal(file_write(at("dir"), "x", 1, 0600, &err), -1); /* rename onto a directory fails */
    char temporary[64];
    snprintf(temporary, sizeof temporary, "dir.%d.tmp", (int)getpid());
    assert_int_equal(access(at(temporary), F_OK), -1);
    assert_int_equal(file_write(at("none/x"), "x", 1, 0600, &err), -1);
    assert_non_null(strstr(err.message, "none/x"));
}

/* What has the temporary file's name already: of a process before us with our number, or put there for us to write to.
 */
static void nothing_is_written_through_the_temporary_name(void **state)
{
    (void)state;
    struct err err;
    struct stat st;
    cleanup_buf struct buf b = {0};
    char temporary[PATH_MAX];
    snprintf(temporary, sizeof temporary, "%s/e.%d.tmp", folder, (int)getpid());
    assert_int_equal(file_write(at("bait"), "theirs", 6, 0644, &err), 0);

    assert_int_equal(symlink(at("bait"), temporary), 0);
    assert_int_equal(file_write(at("e"), "ours", 4, 0600, &err), 0);
    assert_int_equal(lstat(at("e"), &st), 0);
    assert_true(S_ISREG(st.st_mode));

    assert_int_equal(link(at("bait"), temporary), 0);
    assert_int_equal(file_write(at("e"), "ours", 4, 0600, &err), 0);
    assert_int_equal(stat(at("e"), &st), 0);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(file_read(at("bait"), 6, &err, &b), 0);
    assert_string_equal(buf_str(&b), "theirs");
    assert_int_equal(file_read(at("e"), 6, &err, &b), 0);
    assert_string_equal(buf_str(&b), "ours");

    assert_int_equal(mkdir(temporary, 0700), 0); /* nothing that could be removed as a file: an error, and it stays */
    assert_int_equal(file_write(at("e"), "new", 3, 0600, &err), -1);
    assert_non_null(strstr(err.message, temporary));
    assert_int_equal(rmdir(temporary), 0);
}

static void directories_are_made(void **state)
{
    (void)state;
    struct err err = {0};
    struct stat st;
    assert_int_equal(file_make_dirs(at("d1/d2/d3"), 0700, &err), 0);
    assert_int_equal(file_make_dirs(at("d1/d2/d3"), 0700, &err), 0);
    assert_int_equal(stat(at("d1/d2/d3"), &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(file_write(at("d1/file"), "x", 1, 0600, &err), 0);
    assert_int_equal(file_make_dirs(at("d1/file/d"), 0700, &err), -1);
    char long_path[PATH_MAX + 10];
    memset(long_path, 'a', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    assert_int_equal(file_make_dirs(long_path, 0700, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(file_write(long_path, "x", 1, 0600, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

static void trees_go_but_links_are_not_followed(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(file_make_dirs(at("t/deep/er"), 0700, &err), 0);
    assert_int_equal(file_write(at("t/deep/er/file"), "x", 1, 0600, &err), 0);
    assert_int_equal(file_write(at("outside"), "x", 1, 0600, &err), 0);
    assert_int_equal(symlink(folder, at("t/link")), 0);
    assert_int_equal(file_remove_tree(at("t"), &err), 0);
    assert_int_equal(access(at("t"), F_OK), -1);
    assert_int_equal(access(at("outside"), F_OK), 0);
    assert_int_equal(file_remove_tree(at("t"), &err), 0); /* what is not there is fine */
}

static void a_tree_that_others_remove_too_is_gone(void **state)
{
    (void)state;
    struct err err = {0};
    struct stat st;
    assert_int_equal(file_make_dirs(at("t/deep/er"), 0700, &err), 0);
    assert_int_equal(file_write(at("t/deep/er/file"), "x", 1, 0600, &err), 0);
    assert_int_equal(file_write(at("t/file"), "x", 1, 0600, &err), 0);
    forestalled = true;
    int rc = file_remove_tree(at("t"), &err);
    forestalled = false;
    assert_int_equal(lstat(at("t"), &st), -1);
    assert_int_equal(rc, 0);
}

static void what_others_may_write_to_is_not_private(void **state)
{
    (void)state;
    static const mode_t open_modes[] = {0777, 0770, 0720, 01777, 0702};
    struct err err = {0};
    struct stat st;
    assert_int_equal(file_make_private(at("p/q"), &err), 0);
    assert_int_equal(stat(at("p/q"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(chmod(at("p/q"), 0755), 0);
    assert_int_equal(file_make_private(at("p/q"), &err), 0);
    for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++) {
        assert_int_equal(chmod(at("p/q"), open_modes[i]), 0);
        assert_int_equal(file_make_private(at("p/q"), &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
        assert_non_null(strstr(err.message, "set 0700"));
    }
    assert_int_equal(chmod(at("p/q"), 0700), 0);
    assert_int_equal(symlink("q", at("p/link")), 0);
    assert_int_equal(file_make_private(at("p/link"), &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    if (geteuid() == 0) { /* else there is no directory of another's to be had */
        assert_int_equal(chown(at("p/q"), 65534, 65534), 0);
        assert_int_equal(file_make_private(at("p/q"), &err), -1);
        assert_int_equal(err.code, ERR_DENIED);
        assert_non_null(strstr(err.message, "user 65534"));
    }
}

/* The name outlives the power, too, and not only what is in the file. */
static void a_new_name_is_synced(void **state)
{
    (void)state;
    struct err err;
    watch_for("s");
    assert_int_equal(file_write(at("s"), "x", 1, 0600, &err), 0);
    assert_int_equal(synced.count, 1);
    assert_true(synced.had);
    assert_string_equal(synced.path, folder);
    watch_for("s");
    assert_int_equal(file_replace(at("s"), "y", 1, 0600, &err), 0);
    assert_int_equal(synced.count, 0);
    cleanup_buf struct buf b = {0};
    assert_int_equal(file_read(at("s"), 1, &err, &b), 0);
    assert_string_equal(buf_str(&b), "y");

    assert_int_equal(chdir(folder), 0);
    watch_for("plain");
    assert_int_equal(file_write("plain", "x", 1, 0600, &err), 0);
    assert_true(synced.had);
    assert_int_equal(chdir("/"), 0);
}

static void new_directories_are_synced(void **state)
{
    (void)state;
    struct err err;
    watch_for("s1");
    assert_int_equal(file_make_dirs(at("s1"), 0700, &err), 0);
    assert_int_equal(synced.count, 1);
    assert_true(synced.had);
    watch_for("s3");
    assert_int_equal(file_make_dirs(at("s1/s2/s3"), 0700, &err), 0);
    assert_int_equal(synced.count, 2);
    assert_true(synced.had);
    assert_string_equal(synced.path, at("s1/s2"));
    watch_for("s3");
    assert_int_equal(file_make_dirs(at("s1/s2/s3"), 0700, &err), 0);
    assert_int_equal(synced.count, 0); /* there was nothing to make */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_is_read),
        cmocka_unit_test(more_than_the_bound_is_refused),
        cmocka_unit_test(mode_is_as_asked),
        cmocka_unit_test(replacement_is_atomic),
        cmocka_unit_test(nothing_is_written_through_the_temporary_name),
        cmocka_unit_test(a_new_name_is_synced),
        cmocka_unit_test(directories_are_made),
        cmocka_unit_test(new_directories_are_synced),
        cmocka_unit_test(trees_go_but_links_are_not_followed),
        cmocka_unit_test(a_tree_that_others_remove_too_is_gone),
        cmocka_unit_test(what_others_may_write_to_is_not_private),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
