#include "migrate/guestclock.h"

#include <string.h>

#include "base/ensure.h"

/* Offsets in the section: a byte that says "full section", its number, the name with its length, instance, version;
 * ticks, eight bytes nobody uses, nanoseconds; a byte that says "end of section" and the number again. Integers have
 * their highest byte first. */
#define NUMBER_AT        1u
#define NAME_AT          5u
#define TICKS_AT         19u
#define NS_AT            35u
#define FOOTER_AT        43u
#define FULL_SECTION     0x04
#define SECTION_FOOTER   0x7e
#define END_OF_STREAM    0x00
#define NUMBER_BYTES     4u
#define END_FOOTER_BYTES (1u + NUMBER_BYTES + 1u) /* of the last section, and the end */

static const uint8_t name[] = {5, 't', 'i', 'm', 'e', 'r', 0, 0, 0, 0, 0, 0, 0, 2};
_Static_assert(NAME_AT + sizeof name == TICKS_AT && NS_AT + 8 == FOOTER_AT, "as the layout says");
_Static_assert(FOOTER_AT + 1 + NUMBER_BYTES == GUESTCLOCK_SECTION_BYTES, "as the layout says");

static uint64_t number_at(const uint8_t *at)
{
    uint64_t number = 0;
    for (size_t i = 0; i < 8; i++)
        number = number << 8 | at[i];
    return number;
}

static void number_put(uint8_t *at, uint64_t number)
{
    for (size_t i = 8; i-- > 0; number >>= 8)
        at[i] = (uint8_t)number;
}

static bool section_at(const uint8_t *at)
{
    return at[0] == FULL_SECTION && memcmp(at + NAME_AT, name, sizeof name) == 0 && at[FOOTER_AT] == SECTION_FOOTER &&
           memcmp(at + FOOTER_AT + 1, at + NUMBER_AT, NUMBER_BYTES) == 0;
}

/* `recent` holds less than a section of what was looked at before, so each is found once. */
static void look(struct guestclock *clock)
{
    const uint8_t *begin = clock->recent.data, *end = begin + clock->recent.len;
    for (const uint8_t *at = begin; (at = memmem(at, (size_t)(end - at), name, sizeof name)) != NULL; at++) {
        const uint8_t *section = at - NAME_AT;
        if ((size_t)(at - begin) < NAME_AT || (size_t)(end - section) < GUESTCLOCK_SECTION_BYTES ||
            !section_at(section))
            continue;
        memcpy(clock->section, section, GUESTCLOCK_SECTION_BYTES);
        clock->found += clock->found < 2;
    }
}

void guestclock_pass(struct guestclock *clock, const uint8_t *data, size_t len, struct buf *out)
{
    if (len == 0)
        return;
    if (clock->recent.len)
        buf_append(out, clock->recent.data + clock->recent.len - 1, 1);
    buf_append(out, data, len - 1);
    buf_append(&clock->recent, data, len);
    look(clock);
    if (clock->recent.len >= GUESTCLOCK_SECTION_BYTES)
        buf_consume(&clock->recent, clock->recent.len - (GUESTCLOCK_SECTION_BYTES - 1));
}

const char *guestclock_left_text(uint32_t left)
{
    static const char *const texts[] = {
        [GUESTCLOCK_SET] = "",
        [GUESTCLOCK_SWITCHED_OFF] = "clock.correct is off",
        [GUESTCLOCK_TUNNELLED] = "QEMU's own migration carries the state",
        [GUESTCLOCK_KVM] = "with KVM the guest has clocks that are not set",
        [GUESTCLOCK_NO_STOP] = "the source does not say when the guest stopped",
        [GUESTCLOCK_NO_SECTION] = "QEMU's state has no clock of the known form",
        [GUESTCLOCK_AMBIGUOUS] = "more than one place in QEMU's state looks like its clock",
        [GUESTCLOCK_UNKNOWN_END] = "QEMU's state does not end in the known form",
        [GUESTCLOCK_IMPOSSIBLE] = "the clock in QEMU's state shows a time that cannot be",
        [GUESTCLOCK_NO_RATE] = "the rate of the processor's counter is not known",
        [GUESTCLOCK_TOO_LONG] = "it stood still for so long that it would take itself for locked up",
    };
    return left < sizeof texts / sizeof *texts ? texts[left] : "the destination has a reason not known here";
}

enum guestclock_left guestclock_check(const struct guestclock *clock)
{
    if (clock->found == 0)
        return GUESTCLOCK_NO_SECTION;
    if (clock->found > 1)
        return GUESTCLOCK_AMBIGUOUS;
    const uint8_t *end = clock->recent.data + clock->recent.len;
    if (clock->recent.len < END_FOOTER_BYTES || end[-1] != END_OF_STREAM || end[-6] != SECTION_FOOTER)
        return GUESTCLOCK_UNKNOWN_END;
    /* Beyond what adding could make of them lies no clock of any guest (146 years). */
    if (number_at(clock->section + TICKS_AT) > INT64_MAX / 2 || number_at(clock->section + NS_AT) > INT64_MAX / 2)
        return GUESTCLOCK_IMPOSSIBLE;
    return GUESTCLOCK_SET;
}

void guestclock_end(const struct guestclock *clock, uint64_t ns, uint64_t ticks, struct buf *out)
{
    uint8_t section[GUESTCLOCK_SECTION_BYTES];
    if ((ns || ticks) && guestclock_check(clock) == GUESTCLOCK_SET) {
        ENSURE(ns <= GUESTCLOCK_FORWARD_MAX_NS && ticks <= INT64_MAX / 2);
        memcpy(section, clock->section, sizeof section);
        number_put(section + TICKS_AT, number_at(section + TICKS_AT) + ticks);
        number_put(section + NS_AT, number_at(section + NS_AT) + ns);
        buf_append(out, section, sizeof section);
    }
    if (clock->recent.len)
        buf_append(out, clock->recent.data + clock->recent.len - 1, 1);
}

void guestclock_free(struct guestclock *clock)
{
    buf_free(&clock->recent);
}
