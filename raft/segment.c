#include "raft/segment.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT         1u
#define WORD           8u
#define PREAMBLE       16u /* of a batch: checksums and number of entries */
#define ENTRY_HEADER   16u
#define ENTRIES_MAX    (1u << 18) /* as many as libraft takes in one batch */
#define KIND_MAX       3u
#define SECTOR         512u /* what a disk writes whole or not at all, at least */
#define CRC_POLYNOMIAL 0x04c11db7u

/* ---- names ---- */

static bool parse_number(const char **at, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)**at) || strspn(*at, "0123456789") > 19)
        return false;
    *out = strtoull(*at, &end, 10);
    *at = end;
    return true;
}

bool segment_parse_name(const char *name, struct segment_name *out)
{
    struct segment_name parsed = {.open = strncmp(name, "open-", 5) == 0};
    if (parsed.open) {
        name += 5;
        if (!parse_number(&name, &parsed.counter) || *name != '\0')
            return false;
    } else if (!parse_number(&name, &parsed.first) || *name++ != '-' || !parse_number(&name, &parsed.last) ||
               *name != '\0' || parsed.first == 0 || parsed.last < parsed.first) {
        return false;
    }
    *out = parsed;
    return true;
}

/* ---- bytes ---- */

struct reader {
    const uint8_t *data;
    size_t len;
    uint32_t crc_table[256];
};

static uint64_t get(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = bytes; i > 0; i--)
        value = value << 8 | at[i - 1];
    return value;
}

/* The highest bit first, beginning with 0 and not inverted at the end. */
static void crc_prepare(uint32_t table[static 256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i << 24;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x80000000u ? crc << 1 ^ CRC_POLYNOMIAL : crc << 1;
        table[i] = crc;
    }
}

static uint32_t crc_of(const struct reader *reader, size_t at, size_t len)
{
    uint32_t crc = 0;
    for (const uint8_t *byte = reader->data + at; len > 0; len--, byte++)
        crc = crc << 8 ^ reader->crc_table[crc >> 24 ^ *byte];
    return crc;
}

static bool zeros(const struct reader *reader, size_t from, size_t to)
{
    while (from < to && reader->data[from] == 0)
        from++;
    return from == to;
}

/* ---- batches ---- */

/* A batch at a place, as far as it can be made out. */
struct batch {
    size_t end; /* if the header checks; else of the header, and of the preamble if that says nothing sensible */
    bool whole;
};

/* The bytes of data that the header's entries have; false if it is no header, or the file ends before they do. */
static bool data_len(const struct reader *reader, size_t header, uint64_t entries, size_t room, size_t *out)
{
    size_t len = 0;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t word = get(reader->data + header + WORD + i * ENTRY_HEADER + WORD, WORD);
        uint64_t kind = word & 0xffffffffu, bytes = word >> 32;
        if (kind == 0 || kind > KIND_MAX || bytes % WORD != 0 || bytes > room - len)
            return false;
        len += (size_t)bytes;
    }
    *out = len;
    return true;
}

static void read_batch(const struct reader *reader, size_t at, struct batch *out)
{
    size_t left = reader->len - at, len;
    *out = (struct batch){.end = left < PREAMBLE ? reader->len : at + PREAMBLE};
    if (left < PREAMBLE)
        return;
    uint64_t entries = get(reader->data + at + WORD, WORD);
    if (entries == 0 || entries > ENTRIES_MAX || entries > (left - PREAMBLE) / ENTRY_HEADER)
        return;
    size_t header = at + WORD, header_len = WORD + (size_t)entries * ENTRY_HEADER, data = header + header_len;
    out->end = data;
    if (!data_len(reader, header, entries, reader->len - data, &len) ||
        crc_of(reader, header, header_len) != get(reader->data + at, 4))
        return;
    out->end = data + len;
    out->whole = crc_of(reader, data, len) == get(reader->data + at + 4, 4);
}

/* A sector between `from` and `to` is as it was before anything was written from `from` on. */
static bool sector_missing(const struct reader *reader, size_t from, size_t to)
{
    while (from < to) {
        size_t next = (from / SECTOR + 1) * SECTOR;
        next = next < reader->len ? next : reader->len;
        if (zeros(reader, from, next))
            return true;
        from = next;
    }
    return false;
}

void segment_check(const uint8_t *data, size_t len, struct segment_report *out)
{
    struct reader reader = {.data = data, .len = len};
    struct batch batch = {.end = WORD, .whole = true};
    size_t at = 0;
    *out = (struct segment_report){.state = SEGMENT_UNUSED};
    if (zeros(&reader, 0, len))
        return;
    out->state = SEGMENT_SPOILT;
    if (len < WORD || get(data, WORD) != FORMAT) {
        if (sector_missing(&reader, 0, WORD)) /* of the very first write */
            out->state = SEGMENT_CUT_OFF;
        return;
    }
    crc_prepare(reader.crc_table);
    while (batch.whole && batch.end < len) {
        at = batch.end;
        read_batch(&reader, at, &batch);
    }
    if (batch.whole || zeros(&reader, at, len))
        out->state = SEGMENT_WHOLE;
    else if (sector_missing(&reader, at, batch.end))
        out->state = SEGMENT_CUT_OFF;
    out->at = batch.whole ? len : at;
}
