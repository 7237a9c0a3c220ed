/* What time it is at the destination, so that it can be told by its own clock when the guest stopped. */
#include "base/clock.h"
#include "migrate/source_private.h"
#include "proto/bounded.h"

#define ASK_MS 1000u

static void source_clock_told(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    Drover__EngineClockReply *reply = err ? NULL : BOUNDED_UNPACK(engine_clock_reply, body, len);
    if (reply)
        peerclock_sample(&s->clock, s->clock_asked_ns, reply->now_ns, clock_now_ns());
    drover__engine_clock_reply__free_unpacked(reply, NULL);
    s->clock_asked_ns = 0;
    s->clock_questions = reply ? s->clock_questions - 1 : 0; /* who cannot tell does not set the guest's clock either */
    source_state_arrived(s);                                 /* also if it does not answer */
    if (s->clock_questions > 0)
        source_ask_clock(s, s->clock_questions);
}

void source_ask_clock(struct source *s, uint32_t times)
{
    Drover__EngineClock question = DROVER__ENGINE_CLOCK__INIT;
    if (times > s->clock_questions) /* one that paces what is sent takes none away from those that find out the time */
        s->clock_questions = times;
    if (s->clock_asked_ns)
        return; /* the answer under way is the first */
    s->clock_asked_ns = clock_now_ns();
    wire_call(
        wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_CLOCK, &question.base, ASK_MS, source_clock_told, s);
}

void source_tell_stop(const struct source *s, Drover__EngineStateEnd *end)
{
    if (!s->sw.stopped_ns || !peerclock_sound(&s->clock, s->sw.stopped_ns))
        return;
    end->stopped_ns = peerclock_there_ns(&s->clock, s->sw.stopped_ns);
    end->round_trip_ns = s->clock.round_trip_ns;
}
