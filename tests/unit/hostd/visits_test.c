/* Images of guests that have left: what is whole is found again, everything else goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/loop.h"
#include "hostd/visits.h"

#define WEB   "11111111-2222-3333-4444-555555555555"
#define DB    "66666666-7777-8888-9999-aaaaaaaaaaaa"
#define HOUR  UINT64_C(3600000)
#define BYTES (1u << 20)

struct fixture {
    uv_loop_t loop;
    char top[64], images[96], keys[96], memory[96];
    struct visits_options options;
    struct visits *visits;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err;
    strcpy(f->top, "/tmp/drover-visits-XXXXXX");
    assert_non_null(mkdtemp(f->top));
    snprintf(f->images, sizeof f->images, "%s/images", f->top);
    snprintf(f->keys, sizeof f->keys, "%s/keys", f->top);
    snprintf(f->memory, sizeof f->memory, "%s/memory", f->top);
    assert_int_equal(file_make_dirs(f->images, 0700, &err), 0);
    assert_int_equal(file_make_dirs(f->keys, 0700, &err), 0);
    assert_int_equal(file_make_dirs(f->memory, 0700, &err), 0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->options = (struct visits_options){.loop = &f->loop,
        .program = "/bin/false",
        .directory = f->images,
        .key_directory = f->keys,
        .memory_directory = f->memory,
        .max_bytes = 1u << 30,
        .max_age_ms = HOUR};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err;
    visits_close(f->visits);
    uv_run(&f->loop, UV_RUN_DEFAULT); /* keepers that were given up end */
    loop_close(&f->loop);
    assert_int_equal(file_remove_tree(f->top, &err), 0);
    free(f);
    return 0;
}

static void make(const char *directory, const char *name)
{
    static const uint8_t content[BYTES] = {1};
    char path[256];
    struct err err;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_int_equal(file_write(path, content, sizeof content, 0600, &err), 0);
}

static bool there(const char *directory, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

static bool found(const struct fixture *f, const char *vm_id)
{
    char path[PATH_MAX], key[PATH_MAX];
    return visits_find(f->visits, vm_id, path, key);
}

static void test_whole_images_are_found_again(void **state)
{
    struct fixture *f = *state;
    size_t count;
    make(f->images, WEB ".image");
    make(f->keys, WEB ".key");
    make(f->keys, WEB ".log"); /* of the keeper whose end was not seen */
    f->visits = visits_open(&f->options);
    assert_true(found(f, WEB));
    assert_false(found(f, DB) || there(f->keys, WEB ".log"));
    char **list = visits_list(f->visits, &count);
    assert_int_equal(count, 1);
    assert_string_equal(list[0], WEB);
    free(list);
    assert_int_equal(visits_memory_bytes(f->visits), 0);
}

static void test_what_was_being_kept_is_gone(void **state)
{
    struct fixture *f = *state;
    make(f->images, WEB ".image"); /* no key */
    make(f->images, DB ".image.77.partial");
    make(f->keys, DB ".key"); /* no image */
    make(f->keys, DB ".log");
    make(f->memory, DB ".leaving");
    make(f->memory, WEB ".ram"); /* not ours */
    make(f->images, "lost+found");
    f->visits = visits_open(&f->options);
    assert_false(found(f, WEB) || found(f, DB));
    assert_false(there(f->images, WEB ".image") || there(f->images, DB ".image.77.partial"));
    assert_false(there(f->keys, DB ".key") || there(f->keys, DB ".log") || there(f->memory, DB ".leaving"));
    assert_true(there(f->memory, WEB ".ram") && there(f->images, "lost+found"));
}

static void test_turned_off_nothing_stays(void **state)
{
    struct fixture *f = *state;
    make(f->images, WEB ".image");
    make(f->keys, WEB ".key");
    make(f->memory, DB ".ram");
    make(f->images, WEB ".image.17.partial");
    make(f->images, WEB ".qcow2"); /* somebody's disk */
    make(f->images, WEB ".image.qcow2");
    make(f->keys, WEB ".json");
    f->options.max_bytes = 0;
    f->visits = visits_open(&f->options);
    assert_false(there(f->images, WEB ".image") || there(f->keys, WEB ".key"));
    assert_false(there(f->images, WEB ".image.17.partial"));
    assert_true(there(f->images, WEB ".qcow2") && there(f->images, WEB ".image.qcow2") && there(f->keys, WEB ".json"));
    char ram[256];
    snprintf(ram, sizeof ram, "%s/" DB ".ram", f->memory);
    visits_keep(f->visits, DB, ram);
    assert_false(there(f->memory, DB ".ram") || found(f, DB));
}

static void test_forgotten_when_asked_and_with_age(void **state)
{
    struct fixture *f = *state;
    make(f->images, WEB ".image");
    make(f->keys, WEB ".key");
    make(f->images, DB ".image");
    make(f->keys, DB ".key");
    f->visits = visits_open(&f->options);
    visits_forget(f->visits, DB);
    visits_forget(f->visits, "no such VM");
    assert_false(found(f, DB) || there(f->images, DB ".image") || there(f->keys, DB ".key"));
    visits_expire(f->visits, clock_now_ms() + HOUR / 2);
    assert_true(found(f, WEB));
    visits_expire(f->visits, clock_now_ms() + 2 * HOUR);
    assert_false(found(f, WEB) || there(f->images, WEB ".image") || there(f->keys, WEB ".key"));
}

/* Whatever becomes of the image: the RAM file goes, and what was written of the image. */
static void keeper_leaves_nothing(struct fixture *f)
{
    char ram[256];
    f->visits = visits_open(&f->options);
    make(f->memory, WEB ".ram");
    snprintf(ram, sizeof ram, "%s/" WEB ".ram", f->memory);
    visits_keep(f->visits, WEB, ram);
    assert_false(there(f->memory, WEB ".ram"));
    assert_true(visits_memory_bytes(f->visits) >= BYTES);
    assert_false(found(f, WEB));
    while (visits_memory_bytes(f->visits))
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_false(found(f, WEB) || there(f->memory, WEB ".leaving") || there(f->keys, WEB ".log"));
    assert_int_equal(rmdir(f->images), 0); /* nothing is in it */
}

static void test_a_keeper_that_fails_leaves_nothing(void **state)
{
    keeper_leaves_nothing(*state);
}

static void test_a_keeper_that_is_killed_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    char program[96];
    struct err err;
    static const char script[] = "#!/bin/sh\n: >\"$3.$$.partial\"\nkill -9 $$\n";
    snprintf(program, sizeof program, "%s/keeper", f->top);
    assert_int_equal(file_write(program, script, sizeof script - 1, 0700, &err), 0);
    f->options.program = program;
    keeper_leaves_nothing(f);
}

static void test_new_ones_take_the_room_of_old_ones(void **state)
{
    struct fixture *f = *state;
    char ram[256];
    make(f->images, WEB ".image");
    make(f->keys, WEB ".key");
    make(f->memory, DB ".ram");
    snprintf(ram, sizeof ram, "%s/" DB ".ram", f->memory);
    f->options.max_bytes = BYTES + BYTES / 2;
    f->visits = visits_open(&f->options);
    visits_keep(f->visits, DB, ram);
    assert_false(found(f, WEB) || there(f->images, WEB ".image"));
    assert_true(visits_memory_bytes(f->visits) > 0);
    assert_true(visits_yield(f->visits)); /* while it is being kept */
    assert_false(visits_yield(f->visits));
    assert_int_equal(visits_memory_bytes(f->visits), 0);
    assert_false(there(f->memory, DB ".leaving"));
}

static void test_what_would_take_all_the_room_is_not_kept(void **state)
{
    struct fixture *f = *state;
    char ram[256];
    make(f->images, WEB ".image");
    make(f->keys, WEB ".key");
    make(f->memory, DB ".ram");
    snprintf(ram, sizeof ram, "%s/" DB ".ram", f->memory);
    f->options.max_bytes = BYTES;
    f->visits = visits_open(&f->options);
    visits_keep(f->visits, DB, ram);
    assert_true(found(f, WEB)); /* nothing is given up for nothing */
    assert_false(there(f->memory, DB ".ram") || there(f->memory, DB ".leaving"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_images_are_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_being_kept_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_turned_off_nothing_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgotten_when_asked_and_with_age, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_keeper_that_fails_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_keeper_that_is_killed_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_ones_take_the_room_of_old_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_would_take_all_the_room_is_not_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
