/* A hostd that does not find the records of guests which run here, or may run, does not begin to speak for this host.
 */
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
#include <sys/stat.h>
#include <unistd.h>

#include "base/ensure.h"
#include "base/file.h"
#include "base/loop.h"
#include "hostd/hypervisor/qemu/private.h"
#include "hostd/partition/partition.h"
#include "tests/unit/hostd/specs.h"

#define VM           SPECS_VM_ID
#define MAPPED_BYTES 4096

struct fixture {
    char folder[64], directory[96], memory[96], ram[160];
    char record_directory[160];
    struct options options;
    struct partitions_env env;
    uv_loop_t loop;
    struct hypervisor hypervisor;
    struct partitions *ps;
    void *mapped; /* NULL: nothing */
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
    snprintf(f->record_directory, sizeof f->record_directory, "%s/partitions/%s", f->directory, VM);
    ENSURE(uv_loop_init(&f->loop) == 0);
    f->hypervisor.loop = f->env.loop = &f->loop;
    f->env.hypervisor = &f->hypervisor;
    f->env.boot_id = "b00t";
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
    partitions_close(f->ps);
    if (f->mapped)
        munmap(f->mapped, MAPPED_BYTES);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_close(&f->loop);
    int rc = file_remove_tree(f->folder, &err);
    free(f);
    return rc;
}

/* We are the QEMU. */
static void map(struct fixture *f, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, MAPPED_BYTES), 0);
    void *ram = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    f->mapped = ram;
    close(fd);
}

static void refused(struct fixture *f, const char *why)
{
    struct err err;
    struct stat unused;
    assert_int_equal(partitions_open(&f->env, &err, &f->ps), -1);
    assert_non_null(strstr(err.message, VM));
    assert_non_null(strstr(err.message, why));
    assert_int_equal(lstat(f->ram, &unused), 0);
}

static void memory_in_use_is_a_guest_of_ours(void **state)
{
    struct fixture *f = *state;
    map(f, f->ram);
    refused(f, "runs the guest");
}

static void a_lost_record_does_not_make_a_guest_dead(void **state)
{
    struct fixture *f = *state;
    struct err err;
    map(f, f->ram);
    assert_int_equal(file_make_dirs(f->record_directory, 0700, &err), 0);
    refused(f, "runs the guest");
    assert_int_equal(access(f->record_directory, F_OK), 0);
}

static void memory_that_cannot_be_looked_at_may_be_in_use(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(symlink(f->ram, f->ram), 0); /* a name that leads nowhere */
    refused(f, "Too many levels of symbolic links");
}

/* It is renamed before its pages are put away. */
static void memory_of_a_guest_that_left_may_be_in_use(void **state)
{
    struct fixture *f = *state;
    struct err err;
    char leaving[180];
    snprintf(leaving, sizeof leaving, "%s/%s.leaving", f->memory, VM);
    map(f, leaving);
    assert_int_equal(partitions_open(&f->env, &err, &f->ps), 0);
    assert_int_equal(access(leaving, F_OK), 0);
}

static void a_guest_with_a_record_is_taken_up(void **state)
{
    struct fixture *f = *state;
    struct specs specs;
    struct err err;
    char path[PATH_MAX];
    specs_make(&specs);
    specs.spec.n_nics = 0;
    struct record record = {.vm_id = VM, .boot_id = "b00t", .generation = 7, .state = STATE_RUNNING};
    record.spec = &specs.spec;
    assert_int_equal(process_identify(getpid(), &err, &record.guest), 0);
    assert_int_equal(file_make_dirs(f->record_directory, 0700, &err), 0);
    assert_int_equal(record_save(paths_file(f->record_directory, PATH_RECORD, path), &record, &err), 0);
    map(f, f->ram);
    assert_int_equal(partitions_open(&f->env, &err, &f->ps), 0);
    assert_int_equal(access(f->ram, F_OK), 0);
}

/* QEMU opens it by name. */
static void memory_that_others_could_exchange_is_refused(void **state)
{
    struct fixture *f = *state;
    struct partitions *ps = NULL;
    struct err err;
    assert_int_equal(chmod(f->memory, 0777), 0);
    assert_int_equal(partitions_open(&f->env, &err, &ps), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.message, f->memory));
    assert_null(ps);
}

static void memory_of_nobody_is_removed(void **state)
{
    if (geteuid() != 0)
        skip(); /* hostd's privileges: others' processes can be looked at */
    struct fixture *f = *state;
    struct err err;
    char other[160];
    snprintf(other, sizeof other, "%s/notes.ram", f->memory);
    assert_int_equal(file_write(f->ram, "x", 1, 0600, &err), 0);
    assert_int_equal(file_write(other, "x", 1, 0600, &err), 0);
    assert_int_equal(partitions_open(&f->env, &err, &f->ps), 0);
    assert_int_equal(access(f->ram, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(memory_in_use_is_a_guest_of_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_record_does_not_make_a_guest_dead, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_that_cannot_be_looked_at_may_be_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_of_a_guest_that_left_may_be_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_with_a_record_is_taken_up, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_that_others_could_exchange_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_of_nobody_is_removed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
