/* Private to the destination's files: its state, and what they call of each other. destination.h has the phases'
 * meaning.
 *
 *   destination.c            the machine, failing, the connection, running
 *   destination_begin.c      hello, stripes, disks that come along
 *   destination_load.c       device state, verification
 *   destination_clock.c      the guest's clock in it
 *   destination_hand_over.c  the hand-over and what follows it
 *   destination_postcopy.c   pages that come after it */
#ifndef MIGRATE_DESTINATION_PRIVATE_H
#define MIGRATE_DESTINATION_PRIVATE_H

#include "migrate/addresses.h"
#include "migrate/destination.h"
#include "migrate/digest.h"
#include "migrate/ear.h"
#include "migrate/guestclock.h"
#include "migrate/hostticks.h"
#include "migrate/image.h"
#include "migrate/mirror.h"
#include "migrate/puller.h"
#include "migrate/receiver.h"
#include "migrate/relay.h"
#include "migrate/side.h"
#include "migrate/statepipe.h"
#include "migrate/tunnel.h"
#include "proto/engine.pb-c.h"

#define STRIPES_MAX 16u

enum destination_phase {
    DESTINATION_LISTENING,
    DESTINATION_RECEIVING,
    DESTINATION_LOADED,
    DESTINATION_OWNER,
    DESTINATION_POSTCOPY,
    DESTINATION_DONE,
    DESTINATION_RETURNING,
    DESTINATION_FAILED,
    DESTINATION_PHASES
};

struct destination {
    struct side side;
    struct wire_server *server;
    struct wire_peer *source;                                     /* while it is connected */
    struct wire_request *hello, *verify, *hand_over, *disks_over; /* to be answered */
    struct loop_timer *deadline, *announcer, *starter;
    struct receiver *receiver;
    struct puller *puller;  /* NULL: all pages come before the hand-over */
    struct digests digests; /* of what was received; empty: no receipt is wanted */
    struct image *image;    /* of the guest's last visit; NULL: none is offered */
    struct statepipe *pipe;
    struct tunnel *tunnel; /* NULL: memory and devices come by themselves */
    struct mirror *disks;  /* that come, too; NULL: none do */
    struct relay *relay;
    struct ear *ear; /* at the guest's ports */
    uint64_t state_bytes, hand_over_ns, resumed_ns;
    uint64_t taken_ns;   /* when QEMU was told to run the guest; 0: it has not been */
    uint64_t heard_ns;   /* when the guest was first heard; 0: not yet */
    uint64_t refused_ns; /* since when QEMU refuses to run the guest; 0: it has not */
    struct err refusal;  /* and why */
    struct guestclock clock;
    struct hostticks ticks;    /* as they were when we began */
    uint64_t stopped_ns;       /* when the guest stopped, by our clock; 0: not known */
    uint64_t round_trip_ns;    /* to the source */
    uint64_t clock_forward_ns; /* by how much its clock was set forward */
    enum guestclock_left clock_left;
    struct addresses addresses; /* of the guest, to be announced */
    size_t announcements;
    int announce_socket; /* -1: not open */
    enum destination_phase phase;
    char pipe_path[108], disks_path[108];
    char receipt[DIGEST_TEXT];
    bool whole;                    /* memory and devices come in one stream of QEMU's */
    bool naming;                   /* stale pages are being named */
    bool disks_open, disks_closed; /* QEMU offers them; does not any more */
    bool prepared;                 /* QEMU listens for device state */
    bool state_complete;           /* all of it has come, and QEMU is loading it */
    bool asked_back; /* QEMU refuses the guest, and whether its source would have it back is being asked */
    bool farewell;   /* the source has our answer, and after post-copy knows that all is here */
    bool finished;
};

/* destination.c */
void destination_move(struct destination *d, enum destination_phase to);
void destination_trace(const struct destination *d, const char *what);
void destination_finish(void *user);
void destination_fail(struct destination *d, const struct err *err);
/* It is on record that the guest has not run here and never will: the source is told, and all is over. */
void destination_refuse(struct destination *d, const struct err *err);
void destination_on_broken(void *user, const struct err *err);

/* destination_begin.c */
/* For the source at this IP alone. */
int destination_open_receiver(struct destination *d, const char *from, const uint8_t *key, struct err *err);
size_t destination_addresses(const struct destination *d, char *out[static STRIPES_MAX]);
void destination_on_disks_over(struct destination *d, struct wire_request *request);
void destination_on_hello(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len);
void destination_prepared(void *user, const struct err *err);
void destination_on_image(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len);

/* destination_load.c */
void destination_on_state(struct destination *d, const uint8_t *body, size_t len);
void destination_on_state_end(struct destination *d, const uint8_t *body, size_t len);
void destination_on_migration(void *user, const char *status);
void destination_on_verify(struct destination *d, struct wire_request *request);

/* destination_clock.c */

/* As much of the device state as QEMU may have by now. */
void destination_write_state(struct destination *d, const uint8_t *data, size_t len);
/* All of it has come: QEMU gets its end, with the guest's clock. */
void destination_end_state(struct destination *d);

/* destination_hand_over.c */
void destination_try_finish(struct destination *d);
void destination_announce(void *user);
void destination_done(struct destination *d);
void destination_on_resumed(void *user, uint64_t at_ns);
bool destination_on_heard(void *user, uint64_t at_ns);
void destination_adopt(struct destination *d, struct wire_peer *peer);
void destination_take(struct destination *d);
void destination_on_farewell(struct destination *d, const uint8_t *body, size_t len);
void destination_start(void *user);
void destination_on_hand_over(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len);

/* destination_postcopy.c */
void destination_on_postcopy(struct destination *d, struct wire_request *request);
void destination_on_stale(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len);
void destination_on_resume(
    struct destination *d, struct wire_request *request, struct wire_peer *peer, const uint8_t *body, size_t len);
void destination_on_missing(struct destination *d, struct wire_request *request, const uint8_t *body, size_t len);
void destination_on_pages(struct destination *d, const uint8_t *body, size_t len);

#endif
