/* What an NBD client waits for, whatever the pieces in which the bytes come, and the answers that are given in the
 * server's stead. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <string.h>

#include "migrate/nbd.h"
#include "tests/unit/migrate/nbd_words.h"

enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS };

typedef void (*passes_fn)(struct nbd *nbd, const uint8_t *data, size_t len);

/* In pieces of `piece` bytes. */
static void pass(struct nbd *nbd, passes_fn fn, struct buf *words, size_t piece)
{
    for (size_t at = 0; at < words->len; at += piece)
        fn(nbd, words->data + at, words->len - at < piece ? words->len - at : piece);
    buf_clear(words);
}

static void greet(struct nbd *nbd, size_t piece)
{
    struct buf words = {0};
    nbd_init(nbd);
    assert_int_equal(nbd_waits_for(nbd), NBD_DATA);
    words_greeting(&words);
    pass(nbd, nbd_answered, &words, piece);
    assert_int_equal(nbd_waits_for(nbd), NBD_NOTHING);
    words_option(&words);
    pass(nbd, nbd_sent, &words, piece);
    assert_int_equal(nbd_waits_for(nbd), NBD_DATA);
    words_option_reply(&words, 3); /* information, more to come */
    pass(nbd, nbd_answered, &words, piece);
    assert_int_equal(nbd_waits_for(nbd), NBD_DATA);
    words_option_reply(&words, 1);
    pass(nbd, nbd_answered, &words, piece);
    assert_int_equal(nbd_waits_for(nbd), NBD_NOTHING);
    buf_free(&words);
}

static void ask(struct nbd *nbd, bool extended, uint16_t type, uint64_t cookie, size_t piece)
{
    struct buf words = {0};
    words_request(&words, extended, type, cookie, 5000);
    pass(nbd, nbd_sent, &words, piece);
    buf_free(&words);
}

static void reply(struct nbd *nbd, uint32_t form, uint64_t cookie, size_t piece)
{
    struct buf words = {0};
    words_reply(&words, form, cookie, 0);
    pass(nbd, nbd_answered, &words, piece);
    buf_free(&words);
}

static void the_soonest_counts(void **unused)
{
    (void)unused;
    static const size_t pieces[] = {1, 3, 7, 31, 4096, 1 << 20};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        for (unsigned extended = 0; extended < 2; extended++) {
            struct nbd nbd;
            uint32_t form = extended ? WORDS_EXTENDED : WORDS_STRUCTURED;
            greet(&nbd, pieces[i]);
            ask(&nbd, extended, FLUSH, 1, pieces[i]);
            assert_int_equal(nbd_waits_for(&nbd), NBD_FLUSH);
            ask(&nbd, extended, WRITE_ZEROES, 2, pieces[i]);
            assert_int_equal(nbd_waits_for(&nbd), NBD_RANGE);
            ask(&nbd, extended, WRITE, 3, pieces[i]);
            ask(&nbd, extended, TRIM, 4, pieces[i]);
            assert_int_equal(nbd_waits_for(&nbd), NBD_DATA);
            reply(&nbd, form, 3, pieces[i]);
            assert_int_equal(nbd_waits_for(&nbd), NBD_RANGE);
            reply(&nbd, form, 2, pieces[i]);
            reply(&nbd, extended ? form : WORDS_SIMPLE, 4, pieces[i]);
            assert_int_equal(nbd_waits_for(&nbd), NBD_FLUSH);
            reply(&nbd, form, 1, pieces[i]);
            assert_int_equal(nbd_waits_for(&nbd), NBD_NOTHING);
            ask(&nbd, extended, DISC, 5, pieces[i]); /* is not answered */
            assert_int_equal(nbd_waits_for(&nbd), NBD_NOTHING);
            assert_false(nbd.unknown);
        }
    }
}

/* Data of a simple reply have no length of their own. */
static void what_is_read_is_skipped(void **unused)
{
    (void)unused;
    struct nbd nbd;
    struct buf words = {0};
    greet(&nbd, 1 << 20);
    ask(&nbd, false, READ, 7, 1 << 20);
    ask(&nbd, false, WRITE, 8, 1 << 20);
    words_reply(&words, WORDS_SIMPLE, 7, 5000);
    words_reply(&words, WORDS_SIMPLE, 8, 0);
    pass(&nbd, nbd_answered, &words, 4999);
    assert_int_equal(nbd_waits_for(&nbd), NBD_NOTHING);
    assert_false(nbd.unknown);
    buf_free(&words);
}

static void all_are_answered(void **unused)
{
    (void)unused;
    for (unsigned extended = 0; extended < 2; extended++) {
        struct nbd nbd;
        struct buf out = {0}, half = {0};
        greet(&nbd, 1 << 20);
        ask(&nbd, extended, WRITE, 1, 1 << 20);
        ask(&nbd, extended, FLUSH, 2, 1 << 20);
        words_request(&half, extended, WRITE, 3, 5000);
        nbd_sent(&nbd, half.data, 2000);
        assert_true(nbd_answer_all(&nbd, &out)); /* not to the third, which has not been asked yet */
        assert_int_equal(out.len, 2 * (extended ? 32 : 16));
        assert_int_equal(nbd_waits_for(&nbd), NBD_DATA);
        buf_clear(&out);
        nbd_sent(&nbd, half.data + 2000, half.len - 2000);
        assert_true(nbd_answer_all(&nbd, &out));
        assert_int_equal(nbd_waits_for(&nbd), NBD_NOTHING);
        struct buf same = {0};
        words_reply(&same, extended ? WORDS_EXTENDED : WORDS_SIMPLE, 3, 0);
        assert_int_equal(out.len, same.len);
        assert_memory_equal(out.data, same.data, same.len);
        buf_free(&same);
        buf_free(&half);
        buf_free(&out);
    }
}

static void some_cannot_be_answered(void **unused)
{
    (void)unused;
    struct nbd nbd;
    struct buf out = {0}, words = {0};
    nbd_init(&nbd);
    assert_false(nbd_answer_all(&nbd, &out)); /* in the handshake */
    greet(&nbd, 1 << 20);
    assert_true(nbd_answer_all(&nbd, &out));
    ask(&nbd, true, WRITE, 1, 1 << 20);
    ask(&nbd, true, BLOCK_STATUS, 2, 1 << 20);
    assert_false(nbd_answer_all(&nbd, &out)); /* what is it to say? */
    words_reply(&words, WORDS_EXTENDED, 2, 0);
    nbd_answered(&nbd, words.data, 10);
    assert_false(nbd_answer_all(&nbd, &out)); /* within another answer */
    nbd_answered(&nbd, words.data + 10, words.len - 10);
    assert_true(nbd_answer_all(&nbd, &out));
    assert_int_equal(out.len, 32);
    buf_free(&words);
    buf_free(&out);
}

static void other_bytes_are_left_alone(void **unused)
{
    (void)unused;
    struct nbd nbd;
    struct buf out = {0};
    uint8_t noise[4096];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(i * 2654435761u >> 7);
    nbd_init(&nbd);
    nbd_sent(&nbd, noise, sizeof noise);
    assert_int_equal(nbd_waits_for(&nbd), NBD_NOTHING);
    assert_false(nbd_answer_all(&nbd, &out));

    greet(&nbd, 1 << 20);
    for (unsigned i = 0; i < NBD_REQUESTS_MAX; i++)
        ask(&nbd, false, FLUSH, i, 1 << 20);
    assert_int_equal(nbd_waits_for(&nbd), NBD_FLUSH);
    ask(&nbd, false, FLUSH, NBD_REQUESTS_MAX, 1 << 20); /* no QEMU has so many */
    assert_int_equal(nbd_waits_for(&nbd), NBD_NOTHING);
    assert_false(nbd_answer_all(&nbd, &out));

    greet(&nbd, 1 << 20);
    ask(&nbd, false, FLUSH, 1, 1 << 20);
    reply(&nbd, WORDS_SIMPLE, 2, 1 << 20); /* to what nobody asked */
    assert_false(nbd_answer_all(&nbd, &out));
    assert_int_equal(out.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_soonest_counts),
        cmocka_unit_test(what_is_read_is_skipped),
        cmocka_unit_test(all_are_answered),
        cmocka_unit_test(some_cannot_be_answered),
        cmocka_unit_test(other_bytes_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
