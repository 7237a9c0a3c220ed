/* Private to the source's files: its state, and what they call of each other. source.h has the phases' meaning.
 *
 *   source.c              the machine, failing, connecting, running
 *   source_offer.c        what the destination has already
 *   source_disks.c        copying disks before memory, and their part in the switch
 *   source_rounds.c       while the guest runs: rounds, and the way into post-copy
 *   source_collect.c      what must be sent again
 *   source_switch.c       the switch: last pages, device state, verification
 *   source_tunnel.c       a move by QEMU's own migration, instead of rounds and the switch's last pages
 *   source_hand_over.c    the hand-over and what follows it */
#ifndef MIGRATE_SOURCE_PRIVATE_H
#define MIGRATE_SOURCE_PRIVATE_H

#include "migrate/brake.h"
#include "migrate/holes.h"
#include "migrate/mirror.h"
#include "migrate/offer.h"
#include "migrate/peerclock.h"
#include "migrate/policy.h"
#include "migrate/pusher.h"
#include "migrate/relay.h"
#include "migrate/report.h"
#include "migrate/sender.h"
#include "migrate/side.h"
#include "migrate/source.h"
#include "migrate/statepipe.h"
#include "migrate/survey.h"
#include "migrate/tracker.h"
#include "migrate/tunnel.h"
#include "proto/engine.pb-c.h"

#define SOURCE_SWITCH_MS 20000u /* a switch that has come no further than the hand-over by then is called off */

enum source_phase {
    SOURCE_CONNECTING,
    SOURCE_DISKS,
    SOURCE_PRECOPY,
    SOURCE_SWITCHING,
    SOURCE_HANDED_OVER,
    SOURCE_UNANSWERED,
    SOURCE_POSTCOPY,
    SOURCE_DONE,
    SOURCE_FAILING,
    SOURCE_FAILED,
    SOURCE_DOUBT,
    SOURCE_PHASES
};

/* How far the switch is. Memory comes before devices: see source_switch.c. */
struct switching {
    bool flowing;          /* QEMU may go on to stop the guest */
    bool pacing;           /* a piece of QEMU's own memory is on its way: the next one waits */
    uint64_t stopped_ns;   /* when the guest stood still; 0: it runs */
    bool quiet;            /* and the disks are drained: nothing is under way that could write memory */
    bool memory_there;     /* a scan after that found nothing that is not applied, or, in post-copy, named */
    bool saved;            /* QEMU has written all of the device state */
    bool memory_final;     /* and a scan after that found nothing */
    bool state_over, sent; /* the state's end has been read from QEMU; has been sent */
    bool peer_ready;       /* the destination's QEMU has loaded the state */
    bool hashing, verified;
    uint32_t last_passes;
    struct buf held; /* device state that waits for memory_there, or may be device state */
};

struct source;

/* What the tracker cannot see by itself; see source_collect.c. */
struct collecting {
    bool direct;             /* disks write guest memory past the page tables */
    struct bitmap fresh;     /* of one scan */
    struct bitmap renewed;   /* reported while a pass was under way, before its pages were read */
    bool renewing;           /* that is looked for */
    struct bitmap unsettled; /* reported since the disks were last known to have nothing under way */
    struct holes *holes;     /* NULL: nothing frees guest memory */
    void (*then)(struct source *s);
    uint64_t drain_ns;
    uv_work_t work; /* watches pages on another thread */
    bool watching;
    int rc; /* its result */
    struct err err;
};

/* What a move by QEMU's own migration has told of so far; see source_tunnel.c. */
struct tunnelled {
    struct guest_ram seen;
    uint64_t raw_bytes, wire_bytes, round_ns;
};

struct source {
    struct side side;
    enum source_phase phase;
    struct wire_client *client;
    struct loop_timer *deadline; /* of the phase, where it has one */
    struct sender *sender;       /* NULL from POSTCOPY on: the pusher's */
    struct tracker *tracker;     /* NULL: nothing travels before the switch */
    struct tunnel *tunnel;       /* NULL: we track and send memory ourselves */
    struct tunnelled tunnelled;
    struct pusher *pusher; /* NULL: nothing travels after the switch */
    struct brake *brake;   /* NULL: the guest runs at full speed */
    uint64_t braked_ns;    /* since when it does not */
    struct survey *survey; /* NULL: not under way */
    struct statepipe *pipe;
    char pipe_path[108];
    struct mirror *mirror; /* NULL: the disks are where the destination reaches them */
    struct relay *relay;
    struct loop_timer *abandoning; /* until the relay is closed although QEMU's copying has not been called off */
    uint64_t disks_ns;             /* when their copying began */
    char *disk_address;            /* owned; NULL until the destination has said it */
    struct bitmap sending, dirty;
    struct collecting collecting;
    bool prepared;       /* QEMU is ready to be moved */
    bool begun;          /* the look at the guest, or the copying of its disks */
    bool surveyed;       /* it is known how it is going to go */
    bool welcomed;       /* the destination takes pages */
    bool verifies_early; /* before the end of the state */
    struct err early;    /* why it fails as soon as the destination has answered; ERR_NONE: it does not */
    bool flushed;        /* the guest's disks have been written back for the switch */
    bool pass_under_way; /* the workers read `sending` */
    struct sender_stats last_pass;
    size_t renewed_pages; /* of the last pass: written during it, and yet there */
    bool naming;          /* the first stale pages are being named */
    bool lost;            /* the connection broke after the hand-over */
    struct options_policy chosen;
    struct policy policy;
    struct digests digests; /* of what the destination holds; empty: not kept */
    struct forecast forecast;
    struct copies *copies; /* NULL: no deltas */
    struct offer *offer;   /* NULL: the destination offers nothing */
    bool offer_whole;      /* all of it has come that is waited for */
    uint64_t offer_ns, offered_pages;
    struct report report;
    uint8_t bulk_key[SEAL_KEY_BYTES];
    uint64_t started_ns, hand_over_ns, state_bytes;
    struct peerclock clock;   /* the destination's */
    uint64_t clock_asked_ns;  /* a question is under way since; 0: none */
    uint32_t clock_questions; /* to be asked still */
    struct switching sw;
    struct err failure;
    bool finished;
};

/* source.c */
void source_move(struct source *s, enum source_phase to);
void source_trace(const struct source *s, const char *what);
bool source_running(const struct source *s);
/* It has handed over, and has no answer yet. */
bool source_asking(const struct source *s);
/* The guest gets back all of its CPU time. */
void source_release_brake(struct source *s);
void source_finish(struct source *s);
void source_fail(struct source *s, const struct err *err);
void source_fail_if_running(struct source *s, const struct err *err);
/* The same, but not before the destination has answered the hello: then it can be told. */
void source_fail_early(struct source *s, const struct err *err);

/* source_hand_over.c */
void source_doubt(struct source *s, const struct err *err);
void source_done(struct source *s);
void source_started(struct source *s, uint64_t running_us);
void source_hand_over(void *user);
void source_commit(struct source *s);

/* source_switch.c */
void source_try_commit(struct source *s);
void source_send_pass(struct source *s);
void source_switch_passed(struct source *s);
void source_let_switch(struct source *s);
void source_on_migration(void *user, const char *status);
void source_on_stopped(void *user, uint64_t at_ns);
void source_begin_switch(struct source *s);
/* The destination has answered: what was sent before it was asked has arrived. A question that was under way when a
 * piece went out lets the next one go a little early, which costs pace only. */
void source_state_arrived(struct source *s);

/* source_clock.c */

#define CLOCK_QUESTIONS 4u

/* Asks the destination for its time, at least so many times from now on, one after the other: the quickest answer is
 * the best. */
void source_ask_clock(struct source *s, uint32_t times);
/* When the guest stopped, by the destination's clock, if that is known. */
void source_tell_stop(const struct source *s, Drover__EngineStateEnd *end);

/* source_collect.c */

/* Once QEMU's devices are known; before tracking begins. */
MUST_CHECK int source_open_collecting(struct source *s, struct err *err);
void source_close_collecting(struct source *s);
/* Adds to `dirty` what was written or freed since the last scan; without tracking nothing was sent, so all that is
 * allocated. */
MUST_CHECK int source_scan(struct source *s, struct err *err);
/* On a worker's thread, before it reads these pages of a pass: what was written to them up to now is in what it reads.
 */
MUST_CHECK int source_renew(void *user, size_t first, size_t pages, struct err *err);
/* A pass is over: what was written up to when it was read need not be sent again. Returns how many pages those are. */
size_t source_renewed(struct source *s);
/* In PRECOPY: the same, in a way that leaves little to direct I/O; then calls `then`, if still in PRECOPY. */
void source_collect(struct source *s, void (*then)(struct source *s));
/* The disks have nothing under way: adds to `dirty` what they may have written unseen since the last time. */
void source_drained(struct source *s);
/* Before the pages of `sending` are read: from now on it is seen when one of them is freed. */
MUST_CHECK int source_watch(struct source *s, struct err *err);

/* source_offer.c */

/* Asks the destination what it has, then goes on with source_begin(). */
void source_fetch_offer(struct source *s);

/* source_disks.c */

/* The destination takes disks at `address`: copies them, then goes on with source_send_memory(). */
void source_send_disks(struct source *s, const char *address);
void source_on_block_job(void *user, const char *event, json_t *data);
/* QEMU waits before its switch: ends the copying, then lets QEMU go on. */
void source_finish_disks(struct source *s);
/* The guest goes on here, with its own disks. */
void source_abandon_disks(struct source *s);

/* source_tunnel.c */
MUST_CHECK int source_open_tunnel(struct source *s, const Drover__EngineHelloReply *reply, struct err *err);
void source_tunnel_prepared(struct source *s);
void source_tunnel_on_pass(void *user, uint64_t pass);
void source_tunnel_on_migration(struct source *s, const char *status);

/* source_rounds.c */
void source_send_memory(struct source *s);
void source_take_over(struct source *s);
void source_on_all_here(struct source *s, struct wire_request *request, const uint8_t *body, size_t len);
void source_on_pass(void *user, const struct sender_stats *stats);
void source_on_sender_failed(void *user, const struct err *err);
void source_prepared(void *user, const struct err *err);
/* The next step before the first page, once what it needs is there. */
void source_begin(struct source *s);

#endif
