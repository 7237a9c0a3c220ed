/* What QEMU's answers are taken to say of a disk that is being copied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hostd/hypervisor/qemu/copy_look.h"

enum { JOBS, BLOCK, NODES, STATUS };

struct fixture {
    struct copy_names names;
    struct copy_look look;
};

static int setup(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    copy_names_make(1, "0123456789abcdef", &fixture.names);
    copy_look_begin(&fixture.look);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    copy_look_clear(&f->look);
    return 0;
}

static void answer(struct fixture *f, size_t query, const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    copy_looks[query].answered(&f->look, &f->names, json);
    json_decref(json);
}

static void test_names_fit_the_disk_and_the_move(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(f->names.node, "disk1-01234567");
    assert_string_equal(f->names.job, "move-01234567");
    assert_string_equal(f->names.device, "/machine/peripheral/vdisk1/");
}

static void test_the_job_and_no_other(void **state)
{
    static const struct {
        const char *status;
        enum copy_job job;
    } rows[] = {
        {"created", COPY_JOB_RUNNING},
        {"running", COPY_JOB_RUNNING},
        {"standby", COPY_JOB_RUNNING},
        {"ready", COPY_JOB_READY},
        {"waiting", COPY_JOB_ENDING},
        {"pending", COPY_JOB_ENDING},
        {"aborting", COPY_JOB_ENDING},
        {"something new", COPY_JOB_ENDING},
        {"concluded", COPY_JOB_CONCLUDED},
        {"null", COPY_JOB_NONE},
    };
    struct fixture *f = *state;
    answer(f, JOBS, "[{\"id\":\"move-other\",\"status\":\"ready\"}]");
    assert_int_equal(f->look.view.job, COPY_JOB_NONE);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[200];
        snprintf(text, sizeof text,
            "[{\"id\":\"move-01234567\",\"status\":\"%s\",\"current-progress\":5,\"total-progress\":9}]",
            rows[i].status);
        copy_look_begin(&f->look);
        answer(f, JOBS, text);
        assert_int_equal(f->look.view.job, rows[i].job);
        assert_false(f->look.view.job_failed);
        assert_int_equal(f->look.done_bytes, 5);
        assert_int_equal(f->look.total_bytes, 9);
    }
    answer(f, JOBS, "[{\"id\":\"move-01234567\",\"status\":\"concluded\",\"error\":\"No space left\"}]");
    assert_true(f->look.view.job_failed);
    assert_string_equal(f->look.job_error, "No space left");
    copy_look_begin(&f->look);
    assert_string_equal(f->look.job_error, "");
}

/* What the old file was like stays known once the guest has changed over. */
static void test_the_device_and_its_file(void **state)
{
    struct fixture *f = *state;
    answer(f, BLOCK,
        "[{\"qdev\":\"/machine/peripheral/vdisk10/virtio-backend\",\"inserted\":{\"node-name\":\"no\"}},"
        "{\"qdev\":\"/machine/peripheral/vdisk1/virtio-backend\",\"inserted\":{\"node-name\":\"disk1\",\"image\":"
        "{\"virtual-size\":1048576,\"full-backing-filename\":\"/"
        "base.qcow2\",\"backing-filename-format\":\"qcow2\"}}}]");
    assert_string_equal(f->look.source_node, "disk1");
    assert_false(f->look.view.on_target);
    assert_int_equal(f->look.bytes, 1048576);
    assert_string_equal(f->look.backing, "/base.qcow2");
    assert_string_equal(f->look.backing_format, "qcow2");
    copy_look_begin(&f->look);
    answer(f, BLOCK,
        "[{\"qdev\":\"/machine/peripheral/vdisk1/virtio-backend\",\"inserted\":{\"node-name\":\"disk1-01234567\","
        "\"image\":{\"virtual-size\":7}}}]");
    assert_true(f->look.view.on_target);
    assert_int_equal(f->look.bytes, 1048576);
    assert_string_equal(f->look.backing, "/base.qcow2");
}

static void test_open_files_are_told_apart(void **state)
{
    struct fixture *f = *state;
    answer(f, NODES, "[{\"node-name\":\"disk10\"},{\"node-name\":\"disk0\"},{\"node-name\":\"#block12\"}]");
    assert_false(f->look.view.old_open || f->look.view.target_open);
    answer(f, NODES, "[{\"node-name\":\"disk1-file\"},{\"node-name\":\"disk1\"},{\"node-name\":\"disk1-01234567\"}]");
    assert_true(f->look.view.old_open && f->look.view.target_open);
    assert_string_equal(f->look.old_node, "disk1"); /* the format's node, which closes the one below it */
    copy_look_begin(&f->look);
    answer(f, NODES, "[{\"node-name\":\"disk1-76543210\"}]"); /* of an earlier move */
    assert_true(f->look.view.old_open);
    assert_string_equal(f->look.old_node, "disk1-76543210");
}

static void test_nonsense_says_nothing(void **state)
{
    static const char *const rows[] = {"{}", "[]", "[1]", "[null]", "[{}]", "[{\"id\":1,\"qdev\":2,\"node-name\":3}]",
        "[{\"id\":\"move-01234567\",\"current-progress\":-4}]",
        "[{\"qdev\":\"/machine/peripheral/vdisk1/x\",\"inserted\":3}]"};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t query = 0; query < COPY_LOOKS; query++)
            answer(f, query, rows[i]);
    assert_false(f->look.view.on_target || f->look.view.running || f->look.view.old_open || f->look.view.target_open);
    assert_int_equal(f->look.done_bytes, 0);
    assert_int_equal(f->look.bytes, 0);
    answer(f, STATUS, "{\"running\":true}");
    assert_true(f->look.view.running);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names_fit_the_disk_and_the_move, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_job_and_no_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_device_and_its_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_files_are_told_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_says_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
