/* guestclock: the guest's clock in QEMU's device state. Pure.
 *
 * QEMU keeps a guest's time as two frozen counters in the section "timer" of its state: ticks (what the guest reads as
 * its TSC, where QEMU emulates the processor) and nanoseconds (what its other timers go by). Loaded as it is, the
 * section makes the guest go on as if no time had passed. How much has passed is known only when it starts, and the
 * section is among the first. So the stream passes as it is but for its last byte, which says that it is over; before
 * that goes a second copy of the section, set forward, and QEMU takes the later one.
 *
 *   header ... [timer] devices ...            as QEMU wrote it, while it comes
 *                                  [timer'] 0  when all that came before has been taken
 *
 * The section is 48 bytes and must be exactly as known: one full section of that name, instance 0, version 2, of that
 * length, its number repeated behind it; and the stream must end behind a section. Guests can have bytes of their own
 * in the stream; one that imitates the section makes it ambiguous, and its clock is left alone. */
#ifndef MIGRATE_GUESTCLOCK_H
#define MIGRATE_GUESTCLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define GUESTCLOCK_SECTION_BYTES 48u
/* Longer ones are not made up for: a guest that misses so much time at once takes itself for locked up. */
#define GUESTCLOCK_FORWARD_MAX_NS UINT64_C(10000000000)

/* Why a guest's clock was left alone. The engines tell each other the number, so numbers are for ever. */
enum guestclock_left {
    GUESTCLOCK_SET = 0, /* it was not */
    GUESTCLOCK_SWITCHED_OFF = 1,
    GUESTCLOCK_TUNNELLED = 2,
    GUESTCLOCK_KVM = 3,
    GUESTCLOCK_NO_STOP = 4,
    GUESTCLOCK_NO_SECTION = 5,
    GUESTCLOCK_AMBIGUOUS = 6,
    GUESTCLOCK_UNKNOWN_END = 7,
    GUESTCLOCK_IMPOSSIBLE = 8,
    GUESTCLOCK_NO_RATE = 9,
    GUESTCLOCK_TOO_LONG = 10,
};
/* For people; empty for GUESTCLOCK_SET. */
const char *guestclock_left_text(uint32_t left);

/* Zero-initialize; guestclock_free() it. */
struct guestclock {
    struct buf recent; /* the end of what has come */
    uint8_t section[GUESTCLOCK_SECTION_BYTES];
    uint32_t found; /* sections that look like it */
};

/* Takes the next piece of the stream; appends to `out` what QEMU may have now, which is all but the last byte. */
void guestclock_pass(struct guestclock *clock, const uint8_t *data, size_t len, struct buf *out);
/* The stream is over. GUESTCLOCK_SET: its clock can be. */
enum guestclock_left guestclock_check(const struct guestclock *clock);
/* The stream is over: appends its end to `out`, with the clock set `ns` and `ticks` forward if that is possible; both
 * 0 leave it alone. */
void guestclock_end(const struct guestclock *clock, uint64_t ns, uint64_t ticks, struct buf *out);
void guestclock_free(struct guestclock *clock);

#endif
