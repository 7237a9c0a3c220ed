/* What follows when an engine is found dead, by its record file, and what a restarted hostd does with a partition it
 * finds: the tables of ARCHITECTURE.md ("Ownership protocol") and migrate/README.md as pure functions. They decide who
 * runs a guest, so they are kept apart from everything that acts. */
#ifndef HOSTD_DECISION_H
#define HOSTD_DECISION_H

#include <stdint.h>

#include "hostd/partition/state.h"
#include "hostd/report.h"

enum engine_verdict {
    VERDICT_RUN,   /* the guest is this host's: see to it that it executes */
    VERDICT_LOST,  /* it is, but pages of it are elsewhere, and nobody fetches them any more: it is lost */
    VERDICT_SEND,  /* it is not, but pages that it needs there are here alone: go on sending them; else as in doubt */
    VERDICT_DOUBT, /* keep it stopped until the controllers say whose it is */
    VERDICT_END,   /* it is not, and never will be, this host's: end the partition */
};
/* `incoming`: this host is the destination. `other_boot`: it has been reset since, and the record that was replaced
 * last may be the one before again: then a source's that says nothing may have said that the guest was handed over. */
enum engine_verdict decide_engine_death(bool incoming, enum record_phase phase, bool other_boot);

/* The guest of a living engine has died: true where that engine goes on, because it sends what the guest needs at the
 * other host and asks nothing of the one that died here. */
bool decide_sends_on(bool incoming, enum record_phase phase);

/* An incoming partition that ends, by the record that is left: true if its guest certainly never ran here, so that what
 * was made for it is nobody's. A record that was replaced last, by `owner`, may be the one before again once the host
 * has been reset. */
bool decide_never_ran(enum record_phase phase, bool other_boot);

/* A source whose destination is gone for good: true where its engine has to be killed, because it may have handed over
 * and would ask on; false where it can be told to stop and sees to it that the guest goes on. */
bool decide_forsaken(enum record_phase phase);

/* An engine has ended, `in_order` or not (engine_in_order()), with this record: true where somebody else has to let go
 * of the guest in its stead before anything is decided. A source's, which alone watches it, may have left it waiting; a
 * guest whose pages are still elsewhere is lost with its engine, unless it has not run here and can be given back. */
bool decide_let_go(bool incoming, enum record_phase phase, bool guest_alive, bool in_order);

enum resume_step {
    RESUME_AGAIN,   /* it is asked again */
    RESUME_TELL,    /* it is asked again, and those who wait are told that it takes so long (`told`: they were) */
    RESUME_GIVE_UP, /* it stands still for good: it ends */
};
/* This host owns a guest, and QEMU has not resumed it: the last attempt failed with `why`, the first was `asked_ms`
 * ago.
 * - QEMU does not answer, or does not leave its migration: nothing is known of the guest, which may run. Ask again.
 * - QEMU refuses for now: the guest is whole. Ask again.
 * - QEMU says that it never will: the guest is given up once it has said so several times (`refusals`). */
enum resume_step decide_resume(enum err_code why, unsigned refusals, uint64_t asked_ms, bool told);
/* How long until it is asked again, after so many times. */
uint32_t decide_resume_pause_ms(unsigned asked);

enum adoption {
    ADOPT_WATCH,        /* the guest lives: take it up again */
    ADOPT_WATCH_ENGINE, /* likewise, and the engine with it */
    ADOPT_WATCH_SENDER, /* the guest is dead, and the engine goes on: decide_sends_on() */
    ADOPT_ENGINE_DEATH, /* the guest lives, the engine does not: decide_engine_death() */
    ADOPT_ENGINE_STOP,  /* the guest died under a living engine: end that, then as ADOPT_GUEST_DEATH */
    ADOPT_GUEST_DEATH,  /* the guest died while nobody watched */
    ADOPT_END,          /* its end was decided before, or it never came to life: remove what is left */
    ADOPT_KEEP,         /* over: only a report is owed */
};
/* `may_shut_down`: a STOPPING guest has time left to end by itself. `phase`: of the engine's record. */
enum adoption decide_adoption(
    enum partition_state state, bool guest_alive, bool engine_alive, bool may_shut_down, enum record_phase phase);

/* What a guest's death means, by its state, once a possible engine is dead too. */
enum guest_death {
    DEATH_REPORT, /* STOPPED or FAILED: clean up, keep the record for the controller */
    DEATH_REMOVE, /* nobody has to hear of it but through the migration's outcome, or it was asked for */
    DEATH_DOUBT,  /* handed over: still nobody else's to decide */
};
enum guest_death decide_guest_death(enum partition_state state, enum record_phase phase);

#endif
