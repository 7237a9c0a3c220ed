/* Segments: which bytes are a write that was cut off, and which have changed since they were written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/buf.h"
#include "raft/segment.h"

#define SECTOR  512u
#define BATCHES 6u

/* A segment and where its batches begin; behind the last one there are zeros. */
struct sample {
    struct buf bytes;
    size_t at[BATCHES + 1];
};

static void put(struct buf *buf, uint64_t value, size_t bytes)
{
    for (; bytes > 0; bytes--, value >>= 8)
        buf_append(buf, &(uint8_t){(uint8_t)value}, 1);
}

static uint32_t checksum(const uint8_t *data, size_t len)
{
    uint32_t crc = 0;
    for (size_t bit = 0; bit < len * 8; bit++) {
        uint32_t in = (uint32_t)data[bit / 8] >> (7 - bit % 8) & 1u;
        crc = crc << 1 ^ ((crc >> 31 ^ in) ? 0x04c11db7u : 0);
    }
    return crc;
}

static void put_batch(struct buf *out, size_t entries, size_t entry_len)
{
    struct buf header = {0}, data = {0};
    put(&header, entries, 8);
    for (size_t i = 0; i < entries; i++) {
        put(&header, 7, 8);
        put(&header, 1, 4);
        put(&header, entry_len, 4);
        for (size_t n = 0; n < entry_len; n++)
            put(&data, 1 + (n + i + out->len) % 255, 1);
    }
    put(out, checksum(header.data, header.len), 4);
    put(out, checksum(data.data, data.len), 4);
    buf_append(out, header.data, header.len);
    buf_append(out, data.data, data.len);
    buf_free(&header);
    buf_free(&data);
}

/* Short batches and long ones, of one entry and of several. */
static void sample_make(struct sample *sample)
{
    memset(sample, 0, sizeof *sample);
    put(&sample->bytes, 1, 8);
    for (size_t i = 0; i < BATCHES; i++) {
        sample->at[i] = sample->bytes.len;
        put_batch(&sample->bytes, 1 + i % 3, i % 2 ? 1200 : 24);
    }
    sample->at[BATCHES] = sample->bytes.len;
    uint8_t *room = buf_reserve(&sample->bytes, 3000);
    memset(room, 0, 3000);
    sample->bytes.len += 3000;
}

static struct segment_report check(const struct sample *sample)
{
    struct segment_report report;
    segment_check(sample->bytes.data, sample->bytes.len, &report);
    return report;
}

static size_t batch_of(const struct sample *sample, size_t at)
{
    size_t i = 0;
    while (sample->at[i + 1] <= at)
        i++;
    return i;
}

static void test_a_whole_segment(void **state)
{
    struct sample sample;
    (void)state;
    sample_make(&sample);
    assert_int_equal(check(&sample).state, SEGMENT_WHOLE);
    assert_int_equal(check(&sample).at, sample.at[BATCHES]);
    sample.bytes.len = sample.at[BATCHES]; /* shortened, but not renamed yet */
    assert_int_equal(check(&sample).state, SEGMENT_WHOLE);
    buf_free(&sample.bytes);
}

static void test_a_segment_not_written_to(void **state)
{
    struct sample sample = {0};
    (void)state;
    assert_int_equal(check(&sample).state, SEGMENT_UNUSED);
    put(&sample.bytes, 0, 4096);
    assert_int_equal(check(&sample).state, SEGMENT_UNUSED);
    buf_free(&sample.bytes);
}

/* Every byte of every batch, also where nothing is behind it. */
static void test_a_byte_that_changed_is_seen(void **state)
{
    struct sample sample;
    (void)state;
    sample_make(&sample);
    for (size_t i = 0; i < sample.at[BATCHES]; i++) {
        sample.bytes.data[i] ^= 0x40;
        struct segment_report report = check(&sample);
        if (report.state != SEGMENT_SPOILT)
            fail_msg("byte %zu changed: state %d", i, (int)report.state);
        assert_int_equal(report.at, i < 8 ? 0 : sample.at[batch_of(&sample, i)]);
        sample.bytes.data[i] ^= 0x40;
    }
    buf_free(&sample.bytes);
}

/* Nothing from some sector on was written. */
static void test_a_cut_is_no_change(void **state)
{
    struct sample sample, cut;
    (void)state;
    sample_make(&sample);
    sample_make(&cut);
    for (size_t i = (sample.at[BATCHES] - 1) / SECTOR * SECTOR; i > 0; i -= SECTOR) {
        memset(cut.bytes.data + i, 0, cut.bytes.len - i);
        struct segment_report report = check(&cut);
        size_t batch = batch_of(&sample, i);
        if (report.state != (i == sample.at[batch] ? SEGMENT_WHOLE : SEGMENT_CUT_OFF))
            fail_msg("cut at byte %zu: state %d", i, (int)report.state);
        assert_int_equal(report.at, sample.at[batch]);
    }
    buf_free(&sample.bytes);
    buf_free(&cut.bytes);
}

/* Sectors of one write reach the disk in any order: a missing one is none that has changed, whatever is behind it. */
static void test_a_missing_sector_is_no_change(void **state)
{
    struct sample sample;
    (void)state;
    for (size_t sector = 0; sector < 12; sector++) {
        sample_make(&sample);
        size_t last = batch_of(&sample, sector * SECTOR), from = sector == 0 ? 0 : sample.at[last];
        size_t begin = from > sector * SECTOR ? from : sector * SECTOR;
        memset(sample.bytes.data + begin, 0, (sector + 1) * SECTOR - begin);
        struct segment_report report = check(&sample);
        if (report.state != SEGMENT_CUT_OFF)
            fail_msg("sector %zu missing: state %d", sector, (int)report.state);
        assert_int_equal(report.at, from);
        buf_free(&sample.bytes);
    }
}

/* Lengths that would run over, and headers longer than the file. */
static void test_lengths_are_checked_first(void **state)
{
    static const uint64_t counts[] = {2, 1u << 18, (1u << 18) + 1, UINT64_MAX, UINT64_MAX / 16, UINT64_MAX / 16 + 1};
    struct segment_report report;
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (size_t room = 0; room < 64; room++) {
            struct buf bytes = {0};
            put(&bytes, 1, 8);
            put(&bytes, 0x1122334455667788, 8);
            put(&bytes, counts[i], 8);
            for (size_t n = 0; n < room; n++)
                put(&bytes, 0xff, 1);
            segment_check(bytes.data, bytes.len, &report);
            assert_int_equal(report.state, SEGMENT_SPOILT);
            assert_int_equal(report.at, 8);
            buf_free(&bytes);
        }
    }
}

static void test_names(void **state)
{
    static const char *const none[] = {"", "open-", "open-1x", "open--1", "open-99999999999999999999", "metadata1",
        "0000000000000001-0000000000000000", "0000000000000000-0000000000000001", "0000000000000001-", "1-2-3",
        "snapshot-1-2-3", "tmp-0000000000000001-0000000000000002"};
    struct segment_name name;
    (void)state;
    assert_true(segment_parse_name("open-12", &name));
    assert_true(name.open);
    assert_int_equal(name.counter, 12);
    assert_true(segment_parse_name("0000000000000003-0000000000000012", &name));
    assert_false(name.open);
    assert_int_equal(name.first, 3);
    assert_int_equal(name.last, 12);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        if (segment_parse_name(none[i], &name))
            fail_msg("taken: %s", none[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_segment),
        cmocka_unit_test(test_a_segment_not_written_to),
        cmocka_unit_test(test_a_byte_that_changed_is_seen),
        cmocka_unit_test(test_a_cut_is_no_change),
        cmocka_unit_test(test_a_missing_sector_is_no_change),
        cmocka_unit_test(test_lengths_are_checked_first),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
