/* The guest's clock: set forward by the time that the guest stands still, which is known when QEMU has loaded all but
 * the end of its device state. What is then still to come is foretold, and is short.
 *
 * Only for guests that QEMU emulates (TCG). With KVM the guest goes by the processor's own counter and by KVM's clock,
 * which are elsewhere in the state; setting this one alone would tear them apart. */
#include "base/clock.h"
#include "migrate/destination_private.h"

/* From the last byte of the state to the guest's first instruction, where nothing is waited for: QEMU ends loading,
 * our record is written, `cont`. */
#define START_NS UINT64_C(1000000)

void destination_write_state(struct destination *d, const uint8_t *data, size_t len)
{
    struct buf out = {0};
    guestclock_pass(&d->clock, data, len, &out);
    if (out.len)
        statepipe_write(d->pipe, out.data, out.len);
    buf_free(&out);
}

static enum guestclock_left destination_check_clock(const struct destination *d)
{
    if (!d->side.options->correct_clock)
        return GUESTCLOCK_SWITCHED_OFF;
    if (d->whole)
        return GUESTCLOCK_TUNNELLED;
    if (!guest_emulated(d->side.guest))
        return GUESTCLOCK_KVM;
    if (d->stopped_ns == 0 || d->stopped_ns >= clock_now_ns())
        return GUESTCLOCK_NO_STOP;
    return guestclock_check(&d->clock);
}

/* In post-copy the hand-over comes only once the source knows that the state is loaded. */
static void destination_foretell(struct destination *d, uint64_t *ticks)
{
    const struct hostticks now = hostticks_now();
    uint64_t most_ns = GUESTCLOCK_FORWARD_MAX_NS, stood_ns = now.ns - d->stopped_ns, more_ns = START_NS;
    if (d->puller) /* foreign, so bounded before it is added */
        more_ns += d->round_trip_ns < most_ns ? d->round_trip_ns : most_ns;
    uint64_t ns = stood_ns < most_ns ? stood_ns + more_ns : UINT64_MAX;
    if (ns > most_ns)
        d->clock_left = GUESTCLOCK_TOO_LONG;
    else if ((*ticks = hostticks_in(&d->ticks, &now, ns)) == 0)
        d->clock_left = GUESTCLOCK_NO_RATE;
    else
        d->clock_forward_ns = ns;
}

static void destination_state_taken(void *user)
{
    struct destination *d = user;
    struct buf out = {0};
    uint64_t ticks = 0;
    destination_foretell(d, &ticks);
    guestclock_end(&d->clock, d->clock_forward_ns, d->clock_forward_ns ? ticks : 0, &out);
    destination_trace(d, "state-taken");
    statepipe_write(d->pipe, out.data, out.len);
    buf_free(&out);
}

void destination_end_state(struct destination *d)
{
    struct buf out = {0};
    d->clock_left = destination_check_clock(d);
    if (d->clock_left == GUESTCLOCK_SET) {
        statepipe_when_taken(d->pipe, destination_state_taken);
        return;
    }
    guestclock_end(&d->clock, 0, 0, &out);
    if (out.len)
        statepipe_write(d->pipe, out.data, out.len);
    buf_free(&out);
}
