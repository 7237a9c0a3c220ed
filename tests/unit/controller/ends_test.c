/* What is remembered of partitions that ended by themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "controller/pb.h"
#include "controller/state/ends.h"
#include "controller/state/version.h"

static void note(struct state *state, uint64_t number, const char *vm_id, const char *host, const char *why)
{
    struct end end = {.number = number, .at_ms = -(int64_t)number};
    cleanup_buf struct buf entry = {0}, result = {0};
    cleanup_pb Drover__Command *command = pb_new(&drover__command__descriptor);
    snprintf(end.vm_id, sizeof end.vm_id, "%s", vm_id);
    snprintf(end.host, sizeof end.host, "%s", host);
    snprintf(end.why, sizeof end.why, "%s", why);
    command->body_case = DROVER__COMMAND__BODY_CHANGE;
    command->change = pb_new(&drover__change__descriptor);
    PB_ADD(command->change, effects, ends_effect(&end));
    assert_int_equal(version_of_command(command), 1); /* a guest's death must stop no older member */
    pb_pack(command, &entry);
    state_apply(state, entry.data, entry.len, &result);
    cleanup_pb Drover__CommandResult *said = pb_unpack(&drover__command_result__descriptor, result.data, result.len);
    assert_true(said && !said->error);
}

static void the_last_end_of_a_vm_is_remembered(void **unused)
{
    (void)unused;
    struct state *state = state_new(), *other = state_new();
    struct err err;
    cleanup_free struct end *none = NULL, *list = NULL;
    assert_int_equal(ends_all(state, &none), 0);
    assert_null(ends_find(none, 0, "a"));
    note(state, 1, "a", "h1", "QEMU was ended by signal 7");
    note(state, 2, "a", "h2", "the guest shut down");
    note(state, 3, "b", "h1", "");
    cleanup_buf struct buf snapshot = {0};
    state_snapshot(state, &snapshot);
    assert_int_equal(state_restore(other, snapshot.data, snapshot.len, &err), 0);
    assert_int_equal(ends_all(other, &list), 3);
    const struct end *end = ends_find(list, 3, "a");
    assert_non_null(end);
    assert_int_equal(end->number, 2);
    assert_string_equal(end->host, "h2");
    assert_string_equal(end->why, "the guest shut down");
    assert_int_equal(end->at_ms, -2);
    assert_string_equal(ends_find(list, 3, "b")->why, "");
    assert_null(ends_find(list, 3, ""));
    state_free(state);
    state_free(other);
}

static void the_oldest_makes_room(void **unused)
{
    (void)unused;
    struct state *state = state_new();
    char id[32];
    for (uint64_t i = 1000; i <= 1000 + ENDS_MAX; i++) {
        snprintf(id, sizeof id, "vm-%u", (unsigned)i);
        note(state, i, id, "h1", "a long story");
    }
    cleanup_free struct end *list = NULL;
    size_t count = ends_all(state, &list);
    assert_int_equal(count, ENDS_MAX);
    assert_null(ends_find(list, count, "vm-1000"));
    for (size_t i = 0; i < count; i++)
        assert_int_equal(list[i].number, 1001 + i);
    state_free(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_end_of_a_vm_is_remembered),
        cmocka_unit_test(the_oldest_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
