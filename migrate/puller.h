/* puller: the destination's part of post-copy in words of the wire: takes the names of stale pages, asks for those that
 * somebody waits for and asks again after a lost connection, puts in place what comes, and tells the source when every
 * page is here. The pages of the push come through the receiver, into the same filler. */
#ifndef MIGRATE_PULLER_H
#define MIGRATE_PULLER_H

#include "migrate/filler.h"
#include "migrate/side.h"

struct puller;

struct puller_options {
    struct side *side;               /* lent */
    bool (*on_complete)(void *user); /* every page is here, and the guest has been started; asked again until true: then
                                        the source may know */
    void (*on_told)(void *user);     /* the source knows it, too; once */
    void (*on_failed)(void *user, const struct err *err); /* faults are not seen any more */
    void *user;
};

/* Watches QEMU's RAM. Take: puller_close(). */
MUST_CHECK int puller_open(const struct puller_options *options, struct err *err, struct puller **out);
struct filler *puller_filler(struct puller *puller); /* lent */
/* The source's connection, or NULL while there is none. */
void puller_set_peer(struct puller *puller, struct wire_peer *peer);
/* Takes an EngineStale; `*last`: QEMU may load the device state now. */
MUST_CHECK int puller_take_stale(struct puller *puller, const uint8_t *body, size_t len, struct err *err, bool *last);
/* Takes an EnginePages. */
MUST_CHECK int puller_take_pages(struct puller *puller, const uint8_t *body, size_t len, struct err *err);
/* Answers an EngineMissing. */
void puller_answer_missing(struct puller *puller, struct wire_request *request, const uint8_t *body, size_t len);
/* The guest runs: time counts from here, and on_complete may come. */
void puller_started(struct puller *puller);
/* What it did, for the record (take). */
json_t *puller_report(struct puller *puller);
/* The guest never ran here and never will: lets go of QEMU. */
void puller_abandon(struct puller *puller);
/* After the server is closed, because a call of it may be under way. NULL is fine. */
void puller_close(struct puller *puller);

#endif
