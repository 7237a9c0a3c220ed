/* Which disks a migration may announce: what comes from another program is checked before any file is made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "hostd/partition/private.h"
#include "storage/place.h"

static char long_path[PLACE_PATH_MAX + 2];

static void test_moves_must_fit_the_definition(void **state)
{
    Drover__Disk system = DROVER__DISK__INIT, data = DROVER__DISK__INIT, cd = DROVER__DISK__INIT,
                 deep = DROVER__DISK__INIT;
    Drover__Disk *disks[] = {&system, &data, &cd, &deep};
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    static const struct {
        size_t count;
        struct {
            uint32_t number;
            uint64_t bytes;
        } moves[2];
        bool fine;
    } rows[] = {
        {0, {{0, 0}}, true},
        {1, {{0, 1}}, true},
        {2, {{1, INT64_MAX}, {0, 512}}, true},
        {2, {{0, 512}, {0, 512}}, false}, /* twice */
        {1, {{2, 512}}, false},           /* nobody writes to it */
        {1, {{3, 512}}, false},           /* its name leaves no room for a partial one */
        {1, {{4, 512}}, false},
        {1, {{UINT32_MAX, 512}}, false},
        {1, {{0, 0}}, false},
        {1, {{0, UINT64_C(1) << 63}}, false},
    };
    (void)state;
    memset(long_path, 'x', sizeof long_path - 1);
    system.path = data.path = cd.path = (char *)(uintptr_t) "/disks/a.raw";
    deep.path = long_path;
    cd.read_only = true;
    spec.disks = disks;
    spec.n_disks = 4;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err;
        Drover__DiskMove moves[2] = {DROVER__DISK_MOVE__INIT, DROVER__DISK_MOVE__INIT}, *list[2];
        Drover__DiskMoves message = DROVER__DISK_MOVES__INIT;
        message.disks = list;
        for (size_t k = 0; k < rows[i].count; k++) {
            moves[k].number = rows[i].moves[k].number;
            moves[k].bytes = rows[i].moves[k].bytes;
            list[message.n_disks++] = &moves[k];
        }
        assert_int_equal(arrivals_check(&message, &spec, &err), rows[i].fine ? 0 : -1);
        if (!rows[i].fine)
            assert_int_equal(err.code, ERR_INVALID);
    }
    struct err err;
    assert_int_equal(arrivals_check(NULL, &spec, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_moves_must_fit_the_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
