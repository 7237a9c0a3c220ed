/* What is kept of a guest that has left: all of it comes back, nobody else can read it, and what is damaged is found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "migrate/offer.h"
#include "tests/unit/migrate/memory_file.h"

#define PAGES 700u

struct fixture {
    char directory[64], path[96], key_path[96];
    struct ram ram;
    uint8_t held[PAGES][PAGE_BYTES];
    struct image *image;
    struct image_cipher *cipher;
    struct err err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err;
    strcpy(f->directory, "/tmp/drover-image-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    snprintf(f->path, sizeof f->path, "%s/image", f->directory);
    snprintf(f->key_path, sizeof f->key_path, "%s/key", f->directory);
    f->ram = memory_file(PAGES);
    for (size_t page = 0; page < PAGES; page++)
        if (page % 7 != 3 && page / 100 != 4) /* some of it is never touched */
            memory_fill(&f->ram, page, (unsigned)(page / 2 + 1));
    assert_int_equal(ram_read(&f->ram, 0, PAGES, &err, f->held), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    image_close(f->image);
    image_cipher_free(f->cipher);
    ram_close(&f->ram);
    assert_int_equal(file_remove_tree(f->directory, &f->err), 0);
    free(f);
    return 0;
}

static void keep(struct fixture *f)
{
    assert_int_equal(image_keep(&f->ram, f->path, f->key_path, UINT64_MAX, &f->err), 0);
}

static int reopen(struct fixture *f)
{
    image_close(f->image);
    image_cipher_free(f->cipher);
    f->image = NULL;
    f->cipher = NULL;
    if (image_open(f->path, f->key_path, f->ram.bytes, &f->err, &f->image) < 0)
        return -1;
    f->cipher = image_cipher_new(image_key(f->image));
    return 0;
}

/* All tags, as the other side would ask for them. */
static struct offer *offer_all(struct fixture *f)
{
    struct offer *offer = offer_new(PAGES, image_key(f->image));
    uint8_t tags[50 * IMAGE_TAG_BYTES];
    size_t page = 0;
    for (int count; (count = image_tags(f->image, 50, &f->err, &page, tags)) != 0; page += (size_t)count) {
        assert_true(count > 0);
        assert_int_equal(offer_add(offer, page, tags, (size_t)count * IMAGE_TAG_BYTES, &f->err), 0);
    }
    return offer;
}

static size_t files(const struct fixture *f)
{
    DIR *dir = opendir(f->directory);
    size_t count = 0;
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void test_what_was_held_comes_back(void **state)
{
    struct fixture *f = *state;
    uint8_t page[PAGE_BYTES];
    keep(f);
    assert_int_equal(reopen(f), 0);
    struct offer *offer = offer_all(f);
    for (size_t i = 0; i < PAGES; i++) {
        bool zero = page_is_zero(f->held[i]);
        assert_int_equal(offer_holds(offer, f->cipher, i, f->held[i]), !zero);
        if (zero)
            continue;
        assert_int_equal(image_read(f->image, f->cipher, i, 1, &f->err, page), 0);
        assert_memory_equal(page, f->held[i], PAGE_BYTES);
    }
    offer_free(offer);
}

static void test_only_the_same_in_the_same_place_is_held(void **state)
{
    struct fixture *f = *state;
    keep(f);
    assert_int_equal(reopen(f), 0);
    struct offer *offer = offer_all(f);
    uint8_t page[PAGE_BYTES];
    memcpy(page, f->held[5], PAGE_BYTES);
    assert_true(offer_holds(offer, f->cipher, 5, page));
    assert_false(offer_holds(offer, f->cipher, 6, page));
    for (size_t bit = 0; bit < 8 * PAGE_BYTES; bit += 997) {
        page[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(offer_holds(offer, f->cipher, 5, page));
        page[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    offer_free(offer);
}

static void test_offers_that_do_not_fit_are_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t key[IMAGE_KEY_BYTES] = {0}, tags[4 * IMAGE_TAG_BYTES] = {1};
    struct offer *offer = offer_new(PAGES, key);
    assert_int_equal(offer_add(offer, PAGES - 4, tags, sizeof tags, &f->err), 0);
    assert_int_equal(offer_add(offer, PAGES, tags, 0, &f->err), 0);
    assert_int_equal(offer_add(offer, PAGES - 3, tags, sizeof tags, &f->err), -1);
    assert_int_equal(offer_add(offer, UINT64_MAX - 1, tags, sizeof tags, &f->err), -1);
    assert_int_equal(offer_add(offer, 0, tags, sizeof tags - 1, &f->err), -1);
    offer_free(offer);
}

static void test_the_memory_is_given_back(void **state)
{
    struct fixture *f = *state;
    struct bitmap left = bitmap_new(PAGES);
    keep(f);
    assert_int_equal(ram_allocated(&f->ram, &f->err, &left), 0);
    assert_int_equal(bitmap_count(&left), 0);
    bitmap_free(&left);
}

static void test_nobody_else_can_read_it(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    struct buf text = {0};
    keep(f);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(f->key_path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(file_read(f->path, 64u << 20, &f->err, &text), 0);
    for (size_t page = 0; page < PAGES; page++)
        if (!page_is_zero(f->held[page])) {
            assert_memory_not_equal(text.data + page * PAGE_BYTES, f->held[page], PAGE_BYTES);
            assert_null(memmem(text.data, text.len, f->held[page], 16));
        }
    buf_free(&text);
}

/* Keeping may end at any instruction; the key comes last. */
static void test_without_its_key_it_is_none(void **state)
{
    struct fixture *f = *state;
    keep(f);
    unlink(f->key_path);
    assert_int_equal(reopen(f), -1);
    assert_int_equal(f->err.code, ERR_NOT_FOUND);
    assert_int_equal(file_write(f->key_path, "short", 5, 0600, &f->err), 0);
    assert_int_equal(reopen(f), -1);
}

static void test_of_other_memory_it_is_none(void **state)
{
    struct fixture *f = *state;
    keep(f);
    assert_int_equal(image_open(f->path, f->key_path, f->ram.bytes + PAGE_BYTES, &f->err, &f->image), -1);
    assert_int_equal(f->err.code, ERR_NOT_FOUND);
}

/* An image that was replaced between key and content: nothing of it is taken for what it is not. */
static void test_under_another_key_nothing_is_held(void **state)
{
    struct fixture *f = *state;
    static const uint8_t other[IMAGE_KEY_BYTES] = {9};
    keep(f);
    assert_int_equal(file_write(f->key_path, other, sizeof other, 0600, &f->err), 0);
    assert_int_equal(reopen(f), 0);
    struct offer *offer = offer_all(f);
    for (size_t page = 0; page < PAGES; page++)
        assert_false(offer_holds(offer, f->cipher, page, f->held[page]));
    offer_free(offer);
}

static void test_damage_is_found_and_ends_the_image(void **state)
{
    struct fixture *f = *state;
    uint8_t page[PAGE_BYTES], byte;
    keep(f);
    int fd = open(f->path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, 20 * PAGE_BYTES + 100), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, 20 * PAGE_BYTES + 100), 1);
    close(fd);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(image_read(f->image, f->cipher, 21, 1, &f->err, page), 0);
    assert_int_equal(image_read(f->image, f->cipher, 20, 1, &f->err, page), -1);
    assert_int_equal(f->err.code, ERR_CORRUPT);
    assert_int_equal(files(f), 0);
}

/* Neighbours come with one call of the disk, and each is proved by itself. */
static void test_a_run_is_read_at_once(void **state)
{
    struct fixture *f = *state;
    static uint8_t pages[IMAGE_RUN_PAGES * PAGE_BYTES];
    keep(f);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(image_read(f->image, f->cipher, PAGES - 3, 3, &f->err, pages), 0);
    assert_memory_equal(pages, f->held[PAGES - 3], 3 * PAGE_BYTES);
    assert_int_equal(image_read(f->image, f->cipher, PAGES - 3, 4, &f->err, pages), -1);
    assert_int_equal(f->err.code, ERR_PROTOCOL);
    assert_int_equal(image_read(f->image, f->cipher, SIZE_MAX - 1, 4, &f->err, pages), -1);
    assert_int_equal(f->err.code, ERR_PROTOCOL);
    assert_int_equal(image_read(f->image, f->cipher, 4, 6, &f->err, pages), 0);
    assert_memory_equal(pages, f->held[4], 6 * PAGE_BYTES);
    assert_int_equal(files(f), 2);
    assert_int_equal(image_read(f->image, f->cipher, 4, 7, &f->err, pages), -1); /* the last was never kept */
    assert_int_equal(f->err.code, ERR_CORRUPT);
    assert_non_null(strstr(f->err.message, "page 10 "));
}

static void test_pages_that_were_never_kept_cannot_be_read(void **state)
{
    struct fixture *f = *state;
    uint8_t page[PAGE_BYTES];
    keep(f);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(image_read(f->image, f->cipher, 3, 1, &f->err, page), -1);
    assert_int_equal(image_read(f->image, f->cipher, PAGES, 1, &f->err, page), -1);
    assert_int_equal(f->err.code, ERR_PROTOCOL);
}

static void test_too_large_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(image_keep(&f->ram, f->path, f->key_path, 100 * PAGE_BYTES, &f->err), -1);
    assert_int_equal(f->err.code, ERR_CAPACITY);
    assert_int_equal(files(f), 0);
}

static void test_the_newest_visit_counts(void **state)
{
    struct fixture *f = *state;
    uint8_t page[PAGE_BYTES];
    keep(f);
    memory_fill(&f->ram, 11, 99);
    assert_int_equal(ram_read(&f->ram, 11, 1, &f->err, f->held[11]), 0);
    keep(f);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(image_read(f->image, f->cipher, 11, 1, &f->err, page), 0);
    assert_memory_equal(page, f->held[11], PAGE_BYTES);
    assert_int_equal(files(f), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_was_held_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_the_same_in_the_same_place_is_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offers_that_do_not_fit_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_memory_is_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_else_can_read_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_its_key_it_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_of_other_memory_it_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_under_another_key_nothing_is_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_found_and_ends_the_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_run_is_read_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_that_were_never_kept_cannot_be_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_large_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_newest_visit_counts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
