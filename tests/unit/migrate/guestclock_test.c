/* The guest's clock in QEMU's state: found and set in a stream made as QEMU makes it, in pieces of every size, and left
 * alone in everything that only resembles it. And what time it is elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/buf.h"
#include "migrate/guestclock.h"
#include "migrate/hostticks.h"
#include "migrate/peerclock.h"

/* As QEMU 10.0 writes it for a guest that has run for a second. */
static const uint8_t recorded[GUESTCLOCK_SECTION_BYTES] = {0x04, 0, 0, 0, 0, 0x05, 't', 'i', 'm', 'e', 'r', 0, 0, 0, 0,
    0, 0, 0, 2, 0x00, 0x00, 0x00, 0x00, 0x79, 0x84, 0x69, 0xe2, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x00, 0x00, 0x00, 0x3c,
    0xc2, 0x32, 0xea, 0x7e, 0, 0, 0, 0};
#define TICKS UINT64_C(0x798469e2)
#define NS    UINT64_C(0x3cc232ea)

static const uint8_t device[] = {
    0x04, 0, 0, 0, 0x26, 0x03, 'd', 'e', 'v', 0, 0, 0, 0, 0, 0, 0, 1, 0xab, 0x7e, 0, 0, 0, 0x26};

struct stream {
    struct buf bytes;
};

static void stream_add(struct stream *s, const void *data, size_t len)
{
    buf_append(&s->bytes, data, len);
}

static void stream_begin(struct stream *s)
{
    static const uint8_t header[] = {'Q', 'E', 'V', 'M', 0, 0, 0, 3};
    memset(s, 0, sizeof *s);
    stream_add(s, header, sizeof header);
    for (size_t i = 0; i < 100; i++)
        stream_add(s, "timer\0\0", 7);
}

static void stream_end(struct stream *s)
{
    stream_add(s, device, sizeof device);
    stream_add(s, "", 1);
}

/* Passes it in pieces of `piece` bytes; what QEMU gets before the end goes to `out`. */
static void stream_pass(const struct stream *s, size_t piece, struct guestclock *clock, struct buf *out)
{
    memset(clock, 0, sizeof *clock);
    for (size_t at = 0; at < s->bytes.len; at += piece) {
        size_t len = s->bytes.len - at < piece ? s->bytes.len - at : piece;
        guestclock_pass(clock, s->bytes.data + at, len, out);
        assert_int_equal(out->len, at + len - 1); /* nothing but the last byte waits */
    }
}

static uint64_t read_number(const uint8_t *at)
{
    uint64_t number = 0;
    for (int i = 0; i < 8; i++)
        number = number << 8 | at[i];
    return number;
}

static void test_it_is_set_at_the_end(void **state)
{
    (void)state;
    struct stream s;
    stream_begin(&s);
    stream_add(&s, recorded, sizeof recorded);
    stream_end(&s);
    for (size_t piece = 1; piece <= s.bytes.len; piece++) {
        struct guestclock clock;
        struct buf out = {0};
        stream_pass(&s, piece, &clock, &out);
        assert_int_equal(guestclock_check(&clock), GUESTCLOCK_SET);
        guestclock_end(&clock, 12000000, 36000000, &out);

        size_t before = s.bytes.len - 1;
        assert_int_equal(out.len, s.bytes.len + GUESTCLOCK_SECTION_BYTES);
        assert_memory_equal(out.data, s.bytes.data, before);
        const uint8_t *section = out.data + before;
        assert_memory_equal(section, recorded, 19);
        assert_true(read_number(section + 19) == TICKS + 36000000);
        assert_true(read_number(section + 27) == 0);
        assert_true(read_number(section + 35) == NS + 12000000);
        assert_memory_equal(section + 43, recorded + 43, 5);
        assert_int_equal(out.data[out.len - 1], 0);
        buf_free(&out);
        guestclock_free(&clock);
    }
    buf_free(&s.bytes);
}

/* What comes out is what went in. */
static void check_left(const struct stream *s, enum guestclock_left why)
{
    static const size_t pieces[] = {1, 7, 47, 48, 49, 100000};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct guestclock clock;
        struct buf out = {0};
        stream_pass(s, pieces[i], &clock, &out);
        assert_int_equal(guestclock_check(&clock), why);
        guestclock_end(&clock, why == GUESTCLOCK_SET ? 0 : 12000000, why == GUESTCLOCK_SET ? 0 : 36000000, &out);
        assert_int_equal(out.len, s->bytes.len);
        assert_memory_equal(out.data, s->bytes.data, out.len);
        buf_free(&out);
        guestclock_free(&clock);
    }
}

static void test_nothing_to_add_adds_nothing(void **state)
{
    (void)state;
    struct stream s;
    stream_begin(&s);
    stream_add(&s, recorded, sizeof recorded);
    stream_end(&s);
    check_left(&s, GUESTCLOCK_SET);
    buf_free(&s.bytes);
}

static void test_what_only_resembles_it_is_left_alone(void **state)
{
    static const size_t changed[] = {
        0, 4, 5, 6, 10, 14, 18, 43, 44, 47}; /* type, number, name, instance, version, end */
    (void)state;
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        struct stream s;
        uint8_t section[GUESTCLOCK_SECTION_BYTES];
        memcpy(section, recorded, sizeof section);
        section[changed[i]] ^= 1;
        stream_begin(&s);
        stream_add(&s, section, sizeof section);
        stream_end(&s);
        check_left(&s, GUESTCLOCK_NO_SECTION);
        buf_free(&s.bytes);
    }
}

static void test_a_longer_section_is_another(void **state)
{
    (void)state;
    struct stream s;
    stream_begin(&s);
    stream_add(&s, recorded, 43); /* as with -icount: more of it follows */
    stream_add(&s, "\x05\x0ctimer/icount", 14);
    stream_add(&s, recorded + 43, 5);
    stream_end(&s);
    check_left(&s, GUESTCLOCK_NO_SECTION);
    buf_free(&s.bytes);
}

static void test_an_imitation_makes_it_ambiguous(void **state)
{
    (void)state;
    for (int copies = 2; copies < 5; copies++) {
        struct stream s;
        stream_begin(&s);
        for (int i = 0; i < copies; i++)
            stream_add(&s, recorded, sizeof recorded);
        stream_end(&s);
        check_left(&s, GUESTCLOCK_AMBIGUOUS);
        buf_free(&s.bytes);
    }
}

static void test_another_end_is_left_alone(void **state)
{
    static const char *const ends[] = {"\x06{}", "x", "\x7e"}; /* a description of the stream follows, or nonsense */
    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        struct stream s;
        stream_begin(&s);
        stream_add(&s, recorded, sizeof recorded);
        stream_end(&s);
        stream_add(&s, ends[i], strlen(ends[i]));
        check_left(&s, GUESTCLOCK_UNKNOWN_END);
        buf_free(&s.bytes);
    }
}

static void test_a_time_that_cannot_be_is_left_alone(void **state)
{
    (void)state;
    for (size_t at = 19; at <= 35; at += 16) {
        struct stream s;
        uint8_t section[GUESTCLOCK_SECTION_BYTES];
        memcpy(section, recorded, sizeof section);
        section[at] = 0xff; /* negative */
        stream_begin(&s);
        stream_add(&s, section, sizeof section);
        stream_end(&s);
        check_left(&s, GUESTCLOCK_IMPOSSIBLE);
        buf_free(&s.bytes);
    }
}

static void test_nothing_comes_of_nothing(void **state)
{
    (void)state;
    struct guestclock clock = {0};
    struct buf out = {0};
    assert_int_equal(guestclock_check(&clock), GUESTCLOCK_NO_SECTION);
    guestclock_pass(&clock, (const uint8_t *)"", 0, &out);
    guestclock_end(&clock, 1, 1, &out);
    assert_int_equal(out.len, 0);
    guestclock_free(&clock);
}

static void test_reasons_have_words(void **state)
{
    (void)state;
    assert_string_equal(guestclock_left_text(GUESTCLOCK_SET), "");
    for (uint32_t left = GUESTCLOCK_SET + 1; left <= GUESTCLOCK_TOO_LONG; left++)
        assert_true(strlen(guestclock_left_text(left)) > 10);
    assert_non_null(guestclock_left_text(UINT32_MAX));
}

static void test_ticks_by_the_measured_rate(void **state)
{
    (void)state;
    const struct hostticks from = {1000, 5000}, to = {1000 + UINT64_C(1000000000), 5000 + UINT64_C(2700000000)};
    assert_in_range(hostticks_in(&from, &to, 10000000), 26999990, 27000010);
    assert_int_equal(hostticks_in(&from, &from, 10000000), 0); /* no rate can be told from that */
    assert_int_equal(hostticks_in(&to, &from, 10000000), 0);
    const struct hostticks unknown = {1000, 0}, later = {1000 + UINT64_C(1000000000), 0};
    assert_int_equal(hostticks_in(&unknown, &later, 10000000), 0);
}

#define MS UINT64_C(1000000)

static void test_the_quickest_answer_counts(void **state)
{
    (void)state;
    struct peerclock clock = {0};
    peerclock_sample(&clock, 100 * MS, 5000 * MS, 104 * MS); /* ahead by 4898, 2 more or less */
    assert_true(clock.known);
    assert_int_equal(clock.ahead_ns, 4898 * MS);
    peerclock_sample(&clock, 110 * MS, 5009 * MS, 111 * MS); /* 4898.5 */
    assert_int_equal(clock.ahead_ns, 4898 * MS + MS / 2);
    peerclock_sample(&clock, 120 * MS, 5029 * MS, 130 * MS); /* slow, so it says less */
    assert_int_equal(clock.ahead_ns, 4898 * MS + MS / 2);
    assert_int_equal(peerclock_there_ns(&clock, 200 * MS), 5098 * MS + MS / 2);
    assert_int_equal(peerclock_bound_ns(&clock, 111 * MS), MS / 2);
}

static void test_old_answers_lose_their_worth(void **state)
{
    (void)state;
    struct peerclock clock = {0};
    peerclock_sample(&clock, 100 * MS, 100 * MS, 101 * MS);
    uint64_t later = 3600000 * MS;
    assert_true(peerclock_bound_ns(&clock, later) > 50 * MS);
    peerclock_sample(&clock, later, later + 7 * MS, later + 10 * MS);
    assert_int_equal(clock.ahead_ns, 2 * MS);
}

/* As at the end of ten minutes of pre-copy over a link that is full: the late, slow answer is not better than the early
 * one, and neither will do. */
static void test_what_is_not_known_well_sets_no_clock(void **state)
{
    (void)state;
    struct peerclock clock = {0};
    assert_false(peerclock_sound(&clock, MS));
    peerclock_sample(&clock, 100 * MS, 100 * MS, 101 * MS);
    assert_true(peerclock_sound(&clock, 101 * MS));
    assert_true(peerclock_sound(&clock, 200000 * MS));
    peerclock_sample(&clock, 600000 * MS, 600090 * MS, 600100 * MS);
    assert_int_equal(clock.ahead_ns, -(int64_t)MS / 2);
    assert_false(peerclock_sound(&clock, 600100 * MS));
    peerclock_sample(&clock, 600200 * MS, 600205 * MS, 600211 * MS); /* a better one, but not good */
    assert_int_equal(clock.by_ns, 600211 * MS);
    assert_false(peerclock_sound(&clock, 600211 * MS));
}

static void test_a_clock_behind_ours(void **state)
{
    (void)state;
    struct peerclock clock = {0};
    peerclock_sample(&clock, 9000 * MS, 5 * MS, 9002 * MS);
    assert_int_equal(clock.ahead_ns, -8996 * (int64_t)MS);
    assert_int_equal(peerclock_there_ns(&clock, 9100 * MS), 104 * MS);
    peerclock_sample(&clock, 9000 * MS, 5 * MS, 8999 * MS); /* answered before it was asked */
    assert_int_equal(clock.ahead_ns, -8996 * (int64_t)MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_set_at_the_end),
        cmocka_unit_test(test_nothing_to_add_adds_nothing),
        cmocka_unit_test(test_what_only_resembles_it_is_left_alone),
        cmocka_unit_test(test_a_longer_section_is_another),
        cmocka_unit_test(test_an_imitation_makes_it_ambiguous),
        cmocka_unit_test(test_another_end_is_left_alone),
        cmocka_unit_test(test_a_time_that_cannot_be_is_left_alone),
        cmocka_unit_test(test_nothing_comes_of_nothing),
        cmocka_unit_test(test_reasons_have_words),
        cmocka_unit_test(test_ticks_by_the_measured_rate),
        cmocka_unit_test(test_the_quickest_answer_counts),
        cmocka_unit_test(test_old_answers_lose_their_worth),
        cmocka_unit_test(test_what_is_not_known_well_sets_no_clock),
        cmocka_unit_test(test_a_clock_behind_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
