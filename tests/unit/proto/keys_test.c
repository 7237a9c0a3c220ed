/* Key files: made once, never overwritten, read by their owner only. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "proto/keys.h"

static char dir[64];
static char prefix[96], secret_path[128], public_path[128];
static struct key_pair pair;
static struct err err;

/* Every fsync() of base/file.c and proto/keys.c comes by here (CMakeLists.txt). */
static bool directories_fail;

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st;
    if (directories_fail && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        errno = EIO;
        return -1;
    }
    return __real_fsync(fd);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/drover-keys-XXXXXX");
    if (!mkdtemp(dir) || key_generate(&err, &pair) < 0)
        return -1;
    snprintf(prefix, sizeof prefix, "%s/host", dir);
    snprintf(secret_path, sizeof secret_path, "%s.key", prefix);
    snprintf(public_path, sizeof public_path, "%s.pub", prefix);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return file_remove_tree(dir, &err);
}

static void write_text(const char *path, const char *text, mode_t mode)
{
    assert_int_equal(file_write(path, text, strlen(text), mode, &err), 0);
}

static void test_save_and_load(void **state)
{
    (void)state;
    struct key_pair loaded;
    uint8_t public_key[KEY_BYTES];
    struct stat st;
    assert_int_equal(key_save(prefix, &pair, &err), 0);
    assert_int_equal(key_load(secret_path, &err, &loaded), 0);
    assert_memory_equal(&loaded, &pair, sizeof pair);
    assert_int_equal(key_load_public(public_path, &err, public_key), 0);
    assert_memory_equal(public_key, pair.public_key, KEY_BYTES);
    assert_int_equal(stat(secret_path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(public_path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
}

static void test_modes_in_spite_of_umask(void **state)
{
    (void)state;
    struct stat st;
    mode_t old = umask(0777);
    int rc = key_save(prefix, &pair, &err);
    umask(old);
    assert_int_equal(rc, 0);
    assert_int_equal(stat(secret_path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void test_never_overwrites(void **state)
{
    (void)state;
    struct key_pair other, loaded;
    assert_int_equal(key_generate(&err, &other), 0);
    assert_int_equal(key_save(prefix, &pair, &err), 0);
    assert_int_equal(key_save(prefix, &other, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(key_load(secret_path, &err, &loaded), 0);
    assert_memory_equal(&loaded, &pair, sizeof pair);
}

static void test_leaves_no_half_pair(void **state)
{
    (void)state;
    write_text(public_path, "somebody else's\n", 0644);
    assert_int_equal(key_save(prefix, &pair, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(access(secret_path, F_OK), -1);
}

static void test_leaves_no_pair_that_may_not_last(void **state)
{
    (void)state;
    directories_fail = true;
    int rc = key_save(prefix, &pair, &err);
    directories_fail = false;
    assert_int_equal(rc, -1);
    assert_non_null(strstr(err.message, dir));
    assert_int_equal(access(secret_path, F_OK), -1);
    assert_int_equal(access(public_path, F_OK), -1);
    assert_int_equal(key_save(prefix, &pair, &err), 0);
}

static void test_does_not_follow_links(void **state)
{
    (void)state;
    char target[128];
    snprintf(target, sizeof target, "%s/target", dir);
    assert_int_equal(symlink(target, secret_path), 0);
    assert_int_equal(key_save(prefix, &pair, &err), -1);
    assert_int_equal(access(target, F_OK), -1);
}

static void test_refuses_what_others_may_read(void **state)
{
    (void)state;
    static const mode_t modes[] = {0640, 0604, 0644, 0620, 0601};
    struct key_pair loaded;
    assert_int_equal(key_save(prefix, &pair, &err), 0);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        assert_int_equal(chmod(secret_path, modes[i]), 0);
        assert_int_equal(key_load(secret_path, &err, &loaded), -1);
        assert_int_equal(err.code, ERR_DENIED);
        assert_non_null(strstr(err.message, "chmod 600"));
        assert_non_null(strstr(err.message, secret_path));
    }
}

static void test_refuses_what_is_another_users(void **state)
{
    (void)state;
    struct key_pair loaded;
    uint8_t public_key[KEY_BYTES];
    if (geteuid() != 0)
        skip(); /* cannot give files away */
    assert_int_equal(key_save(prefix, &pair, &err), 0);
    assert_int_equal(chown(secret_path, 65534, 65534), 0);
    assert_int_equal(chown(public_path, 65534, 65534), 0);
    assert_int_equal(key_load(secret_path, &err, &loaded), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.message, "user 65534"));
    assert_non_null(strstr(err.message, secret_path));
    assert_int_equal(
        key_load_public(public_path, &err, public_key), 0); /* is no secret, and whose it is says nothing */
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(seteuid(65534), 0);
    int own = key_load(secret_path, &err, &loaded);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(own, 0);
}

static void test_refuses_bad_files(void **state)
{
    (void)state;
    char secret[KEY_TEXT], public[KEY_TEXT], text[2048];
    struct key_pair other, loaded;
    assert_int_equal(key_generate(&err, &other), 0);
    key_format(pair.secret_key, secret);
    key_format(other.public_key, public);

    assert_int_equal(key_load(secret_path, &err, &loaded), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(key_load(dir, &err, &loaded), -1);

    snprintf(text, sizeof text, "public %s\nsecret %s\n", public, secret);
    write_text(secret_path, text, 0600);
    assert_int_equal(key_load(secret_path, &err, &loaded), -1);
    assert_int_equal(err.code, ERR_CORRUPT);

    static const char *const bad[] = {"", "\n\n", "public \nsecret \n", "public abc\n",
        "secret 0123456789012345678901234567890123456789\n", "public 0123456789012345678901234567890123456789extra\n",
        "public\"0123456789012345678901234567890123456789"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(secret_path, bad[i], 0600);
        assert_int_equal(key_load(secret_path, &err, &loaded), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    memset(text, '#', sizeof text);
    assert_int_equal(file_write(secret_path, text, sizeof text, 0600, &err), 0);
    assert_int_equal(key_load(secret_path, &err, &loaded), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(file_write(secret_path, "public \0", 8, 0600, &err), 0);
    assert_int_equal(key_load(secret_path, &err, &loaded), -1);
}

static void test_error_tells_no_secret(void **state)
{
    (void)state;
    char secret[KEY_TEXT], text[256];
    struct key_pair loaded;
    key_format(pair.secret_key, secret);
    snprintf(text, sizeof text, "public %s\nsecret %s!\n", secret, secret);
    write_text(secret_path, text, 0600);
    assert_int_equal(key_load(secret_path, &err, &loaded), -1);
    assert_null(strstr(err.message, secret));
}

static void test_text(void **state)
{
    (void)state;
    char text[KEY_TEXT];
    uint8_t key[KEY_BYTES] = {1}, back[KEY_BYTES];
    key_format(pair.public_key, text);
    assert_int_equal(strlen(text), KEY_TEXT - 1);
    assert_int_equal(key_parse(text, &err, back), 0);
    assert_memory_equal(back, pair.public_key, KEY_BYTES);

    static const char *const bad[] = {"", "short", "0123456789012345678901234567890123456789x",
        "01234567890123456789012345678901234567\"~", "#####################################\x7f\x80\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(key_parse(bad[i], &err, key), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_int_equal(key[0], 1);
    }
    /* 85^5 does not fit 32 bits: the largest digits overflow. */
    assert_int_equal(key_parse("########################################", &err, key), -1);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        T(test_save_and_load),
        T(test_modes_in_spite_of_umask),
        T(test_never_overwrites),
        T(test_leaves_no_half_pair),
        T(test_leaves_no_pair_that_may_not_last),
        T(test_does_not_follow_links),
        T(test_refuses_what_others_may_read),
        T(test_refuses_what_is_another_users),
        T(test_refuses_bad_files),
        T(test_error_tells_no_secret),
        T(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
