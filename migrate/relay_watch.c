/* Source: does the destination go on with what QEMU has asked of it? And answering QEMU in its stead. */
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <utlist.h>

#include "base/log.h"
#include "migrate/relay_private.h"

#define LOOKS 10u /* so many in the shorter patience */

void relay_link_lost(struct link *link, const struct err *err)
{
    const struct relay_watch *watch = &link->relay->watch;
    log_event(LOG_DEBUG, "relay.lost", "what=%s", LOG_QUOTE(err->message)); /* what it means the owner knows */
    watch->on_lost(watch->user, err);
    if (!link->alone)
        relay_link_close(link);
}

/* Has anything moved since the last look? What has been sent tells something only as long as there is always more of it
 * on its way: a destination that hangs takes new writes for a while, and the first of them waits all the same. */
static bool link_moved(struct link *link)
{
    int fd, unacknowledged = 0;
    if (uv_fileno((const uv_handle_t *)&link->remote, &fd) == 0 && ioctl(fd, SIOCOUTQ, &unacknowledged) < 0)
        unacknowledged = 0;
    struct link_look before = link->look;
    link->look = (struct link_look){.arrived_bytes = link->sent_bytes - (uint64_t)unacknowledged,
        .came_bytes = link->came_bytes,
        .queue = unacknowledged > 0 || link->remote_held > 0};
    return link->look.came_bytes != before.came_bytes ||
           (link->look.queue && before.queue && link->look.arrived_bytes != before.arrived_bytes);
}

static uint64_t every_ms(const struct relay *relay)
{
    return relay->watch.data_ms / LOOKS;
}

static uint32_t link_patience_ms(const struct link *link)
{
    switch (link->waits) {
    case NBD_DATA:
        return link->relay->watch.data_ms;
    case NBD_RANGE:
        return link->relay->watch.range_ms;
    case NBD_NOTHING:
    case NBD_FLUSH:
        break;
    }
    return 0;
}

/* For how long has it stood still although QEMU waits? 0: it does not, or not yet too long. Counted in looks: should
 * this engine itself stand still, that is nobody else's silence. */
static uint32_t link_stands_ms(struct link *link)
{
    enum nbd_wait waited = link->waits;
    link->waits = nbd_waits_for(&link->nbd);
    if (link->waits > waited)
        link->still = 0; /* what should be answered sooner has not waited as long */
    uint32_t patience_ms = link_patience_ms(link);
    bool stands = !link_moved(link) && patience_ms > 0;
    link->still = stands ? link->still + 1 : 0;
    return stands && link->still * every_ms(link->relay) >= patience_ms ? patience_ms : 0;
}

static void relay_look(void *user)
{
    struct relay *relay = user;
    struct link *link, *next;
    struct err err;
    DL_FOREACH_SAFE(relay->links, link, next)
    {
        uint32_t stands_ms = link->alone ? 0 : link_stands_ms(link);
        if (!stands_ms)
            continue;
        err_set(&err, ERR_UNAVAILABLE,
            "the destination has done nothing for %u s with what is written to the guest's disks, which waits for it: "
            "its storage, its QEMU or the way there hangs. The guest goes on with its disks here; see to the "
            "destination's storage before it is moved there again",
            stands_ms / 1000);
        relay_link_lost(link, &err);
        return; /* the others may be gone with it; else they are looked at the next time */
    }
}

void relay_watch_start(struct relay *relay)
{
    relay->looking = loop_timer_new(relay->loop, relay_look, relay);
    loop_timer_start(relay->looking, every_ms(relay), every_ms(relay));
}

bool relay_link_answer(struct link *link)
{
    struct buf answers = {0};
    bool can = nbd_answer_all(&link->nbd, &answers);
    if (answers.len > 0)
        relay_link_tell(link, answers.data, answers.len);
    buf_free(&answers);
    return can;
}

void relay_answer_alone(struct relay *relay)
{
    struct link *link, *next;
    if (!relay)
        return;
    relay->alone = true;
    DL_FOREACH_SAFE(relay->links, link, next)
    {
        if (link->alone || !relay_link_answer(link))
            continue;
        link->alone = true;
        relay_link_pump(link);
    }
}
