/* What is made of a guest whose engine died with pages missing, by what a QEMU of cardboard says of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "migrate/give_back.h"
#include "migrate/record.h"

static char mine[] = "11111111-1111-1111-1111-111111111111";

struct fixture {
    char directory[32], record[64], qmp[64];
    struct options options;
    int listener;
    pthread_t qemu;
    const char *status; /* of the guest; NULL: QEMU ends instead of an answer */
    bool asked;
};

static struct fixture fixture;

static void *qemu_main(void *arg)
{
    struct fixture *f = arg;
    char line[512];
    int fd = accept(f->listener, NULL, NULL);
    if (fd < 0)
        return NULL; /* nobody has come */
    FILE *stream = fdopen(fd, "r");
    dprintf(fd, "{\"QMP\":{\"version\":{\"qemu\":{\"major\":10,\"minor\":0,\"micro\":2}},\"capabilities\":[]}}\n");
    while (fgets(line, sizeof line, stream)) {
        json_t *command = json_loads(line, 0, NULL);
        bool looks = strcmp(json_string_value(json_object_get(command, "execute")), "query-status") == 0;
        long long id = json_integer_value(json_object_get(command, "id"));
        json_decref(command);
        f->asked = f->asked || looks;
        if (looks && !f->status)
            break;
        dprintf(fd, "{\"return\":{\"status\":\"%s\"},\"id\":%lld}\n", looks ? f->status : "", id);
    }
    fclose(stream);
    return NULL;
}

static int setup(void **state)
{
    struct fixture *f = &fixture;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct err err;
    *f = (struct fixture){.directory = "/tmp/drover-test-XXXXXX", .status = "paused"};
    if (!mkdtemp(f->directory))
        return -1;
    snprintf(f->record, sizeof f->record, "%s/record", f->directory);
    snprintf(f->qmp, sizeof f->qmp, "%s/qmp", f->directory);
    f->options = (struct options){.migration_id = mine, .record_file = f->record, .qmp = f->qmp};
    strcpy(address.sun_path, f->qmp);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *state = f;
    return bind(f->listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(f->listener, 1) < 0 ||
                   record_prepare_failed(f->record, mine, &err) < 0 || pthread_create(&f->qemu, NULL, qemu_main, f) != 0
               ? -1
               : 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    shutdown(f->listener, SHUT_RDWR);
    pthread_join(f->qemu, NULL);
    close(f->listener);
    alarm(0);
    unlink(f->record);
    unlink(f->qmp);
    record_unprepare(f->record);
    return rmdir(f->directory);
}

static void fetches(struct fixture *f)
{
    struct err err;
    assert_int_equal(record_write_postcopy(f->record, mine, "owner", &err), 0);
}

static void test_a_guest_that_has_not_run_is_given_back(void **state)
{
    struct fixture *f = *state;
    fetches(f);
    assert_int_equal(give_back_run(&f->options), 0);
    assert_true(record_says(f->record, mine, "failed"));
}

static void is_kept(struct fixture *f)
{
    fetches(f);
    assert_int_equal(give_back_run(&f->options), 1);
    assert_true(record_fetching(f->record, mine));
}

static void test_a_guest_that_runs_is_kept(void **state)
{
    struct fixture *f = *state;
    f->status = "running";
    is_kept(f);
}

static void test_a_guest_that_nobody_answers_for_is_kept(void **state)
{
    struct fixture *f = *state;
    f->status = NULL;
    is_kept(f);
}

/* It is whole here, or another's: nobody is asked. */
static void test_what_is_not_fetching_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct err err;
    assert_int_equal(record_write(f->record, mine, "owner", &err), 0);
    assert_int_equal(give_back_run(&f->options), 1);
    assert_true(record_says(f->record, mine, "owner"));
    assert_int_equal(record_write_postcopy(f->record, "22222222-2222-2222-2222-222222222222", "owner", &err), 0);
    assert_int_equal(give_back_run(&f->options), 1);
    assert_true(record_fetching(f->record, "22222222-2222-2222-2222-222222222222"));
    assert_false(f->asked);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_guest_that_has_not_run_is_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_runs_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_guest_that_nobody_answers_for_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_fetching_is_left_alone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
