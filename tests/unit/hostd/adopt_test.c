/* A hostd that does not find the records of guests which run here does not begin to speak for this host. */
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
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "hostd/partition/partition.h"

#define VM "6f1d2c3b-1c5b-4a39-9e87-3b2a1c0d9e8f"

struct fixture {
    char folder[64], directory[96], memory[96], ram[160];
    struct options options;
    struct partitions_env env;
};

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err;
    strcpy(f->folder, "/tmp/drover-adopt-test-XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->directory, sizeof f->directory, "%s/host", f->folder);
    snprintf(f->memory, sizeof f->memory, "%s/memory", f->folder);
    snprintf(f->ram, sizeof f->ram, "%s/%s.ram", f->memory, VM);
    f->options.directory = f->directory;
    f->options.memory_directory = f->memory;
    f->env.options = &f->options;
    *state = f;
    return file_make_dirs(f->memory, 0700, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err;
    int rc = file_remove_tree(f->folder, &err);
    free(f);
    return rc;
}

static void memory_in_use_is_a_guest_of_ours(void **state)
{
    struct fixture *f = *state;
    struct partitions *ps = NULL;
    struct err err;
    int fd = open(f->ram, O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, 4096), 0);
    void *ram = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    close(fd);
    assert_int_equal(partitions_open(&f->env, &err, &ps), -1);
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.message, VM));
    assert_int_equal(access(f->ram, F_OK), 0);
    partitions_close(ps);
    munmap(ram, 4096);
}

static void memory_of_nobody_is_removed(void **state)
{
    struct fixture *f = *state;
    struct partitions *ps;
    struct err err;
    char other[160];
    snprintf(other, sizeof other, "%s/notes.ram", f->memory);
    assert_int_equal(file_write(f->ram, "x", 1, 0600, &err), 0);
    assert_int_equal(file_write(other, "x", 1, 0600, &err), 0);
    assert_int_equal(partitions_open(&f->env, &err, &ps), 0);
    assert_int_equal(access(f->ram, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
    partitions_close(ps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(memory_in_use_is_a_guest_of_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_of_nobody_is_removed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
