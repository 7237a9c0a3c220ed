/* Before the first page, and while the guest is looked at: what the destination has of its last visit there. */
#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/log.h"
#include "migrate/source_private.h"
#include "proto/bounded.h"

#define OFFER_CALL_MS 2000u
/* What has not come by then is sent as if it were not there: 16 bytes a page, so a slow link may need longer. */
#define OFFER_MS 5000u

static void offer_end(struct source *s, const char *why)
{
    log_event(LOG_INFO, "offer.taken", "pages=%llu after_us=%llu detail=%s", (unsigned long long)s->offered_pages,
        (unsigned long long)(clock_now_ns() - s->offer_ns) / 1000, LOG_QUOTE(why));
    s->offer_whole = true;
    crashpoint("source", "offer-taken");
    source_begin(s);
}

static void offer_ask(struct source *s, uint64_t first_page);

static void offer_answered(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct source *s = user;
    struct err why;
    if (!source_running(s))
        return;
    if (err) { /* every page can be sent */
        offer_end(s, err->message);
        return;
    }
    Drover__EngineImageReply *reply = BOUNDED_UNPACK(engine_image_reply, body, len);
    size_t bytes = reply ? reply->tags.len : 0;
    uint64_t next = reply ? reply->first_page + bytes / IMAGE_TAG_BYTES : 0;
    bool fits = reply && offer_add(s->offer, reply->first_page, reply->tags.data, bytes, &why) == 0;
    drover__engine_image_reply__free_unpacked(reply, NULL);
    s->offered_pages += fits ? bytes / IMAGE_TAG_BYTES : 0;
    if (!fits || bytes == 0 || next >= s->side.ram.pages || clock_now_ns() - s->offer_ns > OFFER_MS * UINT64_C(1000000))
        offer_end(s, fits ? "" : "an offer that makes no sense");
    else
        offer_ask(s, next);
}

static void offer_ask(struct source *s, uint64_t first_page)
{
    Drover__EngineImage request = DROVER__ENGINE_IMAGE__INIT;
    request.first_page = first_page;
    wire_call(wire_client_peer(s->client), DROVER__ENGINE_METHOD__ENGINE_IMAGE, &request.base, OFFER_CALL_MS,
        offer_answered, s);
}

void source_fetch_offer(struct source *s)
{
    s->offer_ns = clock_now_ns();
    offer_ask(s, 0);
    crashpoint("source", "offer-asked");
}
