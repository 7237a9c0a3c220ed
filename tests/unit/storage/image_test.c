/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/loop.h"
#include "storage/image.h"

struct told {
    unsigned times;
    enum err_code code;
    char message[ERR_MESSAGE_MAX];
};

static void made(void *user, const struct err *err)
{
    struct told *told = user;
    told->times++;
    told->code = err ? err->code : ERR_NONE;
    if (err)
        strcpy(told->message, err->message);
}

/* Runs one; what was told, and the file's first bytes. */
static struct told make(const char *program, const char *format, bool patient, char head[8], off_t *size)
{
    char path[] = "/tmp/drover-image-XXXXXX";
    struct told told = {0};
    struct err err;
    struct stat st;
    struct image *image;
    uv_loop_t loop;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    struct image_config config = {.qemu_img = program, .path = path, .format = format, .bytes = 8 << 20};
    if (image_make(&loop, &config, made, &told, &err, &image) < 0) {
        told.code = err.code;
        image = NULL;
    }
    if (patient)
        uv_run(&loop, UV_RUN_DEFAULT);
    image_free(image);
    uv_run(&loop, UV_RUN_DEFAULT);
    memset(head, 0, 8);
    assert_true(pread(fd, head, 4, 0) >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    *size = st.st_size;
    close(fd);
    unlink(path);
    loop_close(&loop);
    return told;
}

static void raw(void **unused)
{
    (void)unused;
    char head[8];
    off_t size;
    struct told told = make("/nonexistent", "raw", true, head, &size);
    assert_int_equal(told.times, 1);
    assert_int_equal(told.code, ERR_NONE);
    assert_int_equal(size, 8 << 20);
    assert_int_equal(make("/nonexistent", "raw", false, head, &size).times, 0);
}

static void qcow2(void **unused)
{
    (void)unused;
    char head[8];
    off_t size;
    if (system("qemu-img --version >/dev/null 2>&1") != 0)
        skip();
    struct told told = make("qemu-img", "qcow2", true, head, &size);
    assert_int_equal(told.times, 1);
    assert_int_equal(told.code, ERR_NONE);
    assert_memory_equal(head, "QFI\xfb", 4);
    assert_int_equal(make("qemu-img", "qcow2", false, head, &size).times, 0);
}

static void programs_that_fail(void **unused)
{
    (void)unused;
    char head[8];
    off_t size;
    struct told told = make("/nonexistent", "qcow2", true, head, &size);
    assert_int_equal(told.times, 0);
    assert_int_equal(told.code, ERR_NOT_FOUND);
    told = make("false", "qcow2", true, head, &size);
    assert_int_equal(told.times, 1);
    assert_int_equal(told.code, ERR_INVALID);
    assert_string_equal(told.message, "qemu-img failed");
    told = make("ls", "qcow2", true, head, &size); /* says why on its stderr */
    assert_int_equal(told.code, ERR_INVALID);
    assert_non_null(strstr(told.message, "create"));
}

static void count_process(uv_handle_t *handle, void *user)
{
    *(unsigned *)user += handle->type == UV_PROCESS;
}

static bool has_process(uv_loop_t *loop)
{
    unsigned count = 0;
    uv_walk(loop, count_process, &count);
    return count > 0;
}

/* The program has ended, but what it has started goes on holding its stderr: its pid is no more ours to kill. */
static void given_up_after_its_program_ended(void **unused)
{
    (void)unused;
    static const char script[] = "#!/bin/sh\nsleep 60 &\nexit 0\n";
    char folder[] = "/tmp/drover-image-XXXXXX", program[64], path[64];
    struct told told = {0};
    struct err err;
    struct image *image;
    uv_loop_t loop;
    assert_non_null(mkdtemp(folder));
    snprintf(program, sizeof program, "%s/program", folder);
    snprintf(path, sizeof path, "%s/image", folder);
    assert_int_equal(file_write(program, script, sizeof script - 1, 0700, &err), 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    struct image_config config = {.qemu_img = program, .path = path, .format = "qcow2", .bytes = 8 << 20};
    assert_int_equal(image_make(&loop, &config, made, &told, &err, &image), 0);
    while (has_process(&loop))
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(told.times, 0);
    image_free(image);
    alarm(30); /* ends the test where the loop waits for those who hold it */
    uv_run(&loop, UV_RUN_DEFAULT);
    alarm(0);
    assert_int_equal(told.times, 0);
    loop_close(&loop);
    assert_int_equal(file_remove_tree(folder, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw),
        cmocka_unit_test(qcow2),
        cmocka_unit_test(programs_that_fail),
        cmocka_unit_test(given_up_after_its_program_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
