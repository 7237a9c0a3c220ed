/* Migrations, both ends: the requests of the controllers, and what follows when an engine ends. hostd does not move a
 * byte; it starts engines, and acts on their record files (migrate/README.md, hostd/decision.h). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/crashpoint.h"
#include "base/ensure.h"
#include "hostd/partition/private.h"
#include "hostd/text.h"
#include "proto/api.pb-c.h"

#define FAREWELL_MS 4000u /* longer than a source asks again; the controllers, who know by then, end it too */

/* Keeps how the migration ended; `unresumed`: with a guest that is not seen to run. -1: not written down; nothing may
 * be done that follows from it. */
static int keep_any_outcome(struct partition *p, Drover__MigrationOutcome how, const struct err *why, bool unresumed,
    bool told, struct err *err)
{
    Drover__MigrateOutcomeRequest outcome = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    Drover__ErrorInfo error = DROVER__ERROR_INFO__INIT;
    Drover__MigrationRecord empty = DROVER__MIGRATION_RECORD__INIT, record;
    const struct record_migration *m = &p->record.migration;
    record = p->last.record ? *p->last.record : empty;
    record.migration_id = (char *)(uintptr_t)m->id;
    record.to_host = m->incoming ? p->all->host_name : (char *)(uintptr_t)m->to_host;
    if (!m->incoming)
        record.from_host = p->all->host_name;
    outcome.migration_id = (char *)(uintptr_t)m->id;
    outcome.vm_id = p->record.vm_id;
    outcome.outcome = how;
    outcome.unresumed = unresumed;
    outcome.record = &record;
    outcome.heard_us = p->last.heard_us;
    outcome.listens = m->incoming && p->engine && p->record.spec->n_nics > 0 && !p->last.heard_us;
    if (why) {
        error.code = (char *)(uintptr_t)err_name(why->code);
        error.message = (char *)(uintptr_t)why->message;
        outcome.error = &error;
    }
    crashpoint("hostd", "outcome-before");
    if (outcomes_add(p->all->env.outcomes, &outcome, told, err) < 0) {
        log_event(LOG_ERROR, "outcome.unsaved", "migration=%s reason=%s", m->id, LOG_QUOTE(err->message));
        return -1;
    }
    crashpoint("hostd", "outcome-after");
    log_event(LOG_INFO, "migration.ended",
        "migration=%s vm=%s name=%s side=%s outcome=%s blackout_us=%" PRIu64 " reason=%s", m->id, p->record.vm_id,
        p->record.spec->name, m->incoming ? "destination" : "source",
        how == DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN     ? "taken"
        : how == DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED ? "aborted"
                                                              : "doubt",
        record.blackout_us, LOG_QUOTE(why ? why->message : ""));
    return 0;
}

static int keep_outcome(
    struct partition *p, Drover__MigrationOutcome how, const struct err *why, bool told, struct err *err)
{
    return keep_any_outcome(p, how, why, false, told, err);
}

/* It cannot be written down how it ended, so nothing follows from it yet; whoever waits is to ask again, which is when
 * it is tried again. */
static void undecided(struct partition *p, const struct err *err)
{
    queries_refuse(p, err);
    if (p->starting)
        action_fail(p->starting, err);
    p->starting = NULL;
}

/* The guest is this host's from here on, as if nobody had ever spoken of moving it. */
static void settle(struct partition *p, const char *detail)
{
    struct err unsaved;
    queries_answer(p);
    report_clear(&p->last);
    arrivals_settle(p, true);
    visits_forget(p->all->env.visits, p->record.vm_id);
    p->record.migration = (struct record_migration){0};
    p->forsaken = p->fenced = false;
    p->told = DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
    crashpoint("hostd", "settle-before");
    if (partition_move(p, STATE_RUNNING, detail, &unsaved) == 0) {
        crashpoint("hostd", "settle-after");
        engine_remove_files(p->directory);
        crashpoint("hostd", "settle-cleaned");
    } else { /* until it is written down, the engine's record must say whose it is */
        partition_note(p, STATE_RUNNING, detail);
    }
    if (p->stopping)
        partition_end(p, "ended at once", false);
}

/* Why it did not move, by what the engine said or by its last words. */
static struct err failure_of(const struct partition *p, const char *why)
{
    struct err failure;
    bool by_us = p->forsaken || p->fenced; /* then no user has asked for it */
    if (p->last.failed && !(by_us && p->last.failure.code == ERR_CANCELLED))
        failure = p->last.failure;
    else
        err_set(&failure, ERR_UNAVAILABLE, "the guest has not moved%s%s", why[0] ? ": " : "", why);
    return failure;
}

/* QEMU refuses to run it, and it is ours: its death is told as a failure. */
static void give_up(struct partition *p)
{
    guest_kill(p->guest);
}

/* It may run, or stand still; whose it is is certain, and whoever waits is told that and what can be done. */
static void late(struct partition *p, const struct err *err)
{
    struct err failure, unsaved;
    bool incoming = p->record.migration.incoming;
    err_set(&failure, ERR_TIMEOUT,
        "the guest is on host %s, but QEMU has not been seen to "
        "run it: %s; see to that: it is asked on and on; or, where "
        "it stands still, end it by `drover vm stop --force %s`",
        p->all->host_name, err->message, p->record.spec->name);
    if (keep_any_outcome(p,
            incoming ? DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN : DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED,
            &failure, true, false, &unsaved) == 0)
        queries_answer(p);
    p->all->env.on_change(p->all->env.user);
}

static void source_resumed(struct partition *p, const struct err *err)
{
    if (err) {
        give_up(p);
        return;
    }
    crashpoint("hostd", "guest-resumed");
    struct err failure = failure_of(p, p->end_detail), unsaved;
    p->end_detail[0] = '\0';
    /* Should the outcome be lost, the state says the same: running here under the old generation. */
    (void)keep_outcome(p, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED, &failure, false, &unsaved);
    settle(p, failure.message);
}

static void destination_resumed(struct partition *p, const struct err *err)
{
    struct err unsaved;
    if (err) {
        give_up(p);
        return;
    }
    (void)keep_outcome(p, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN, NULL, false, &unsaved);
    settle(p, "");
}

static void resolve_answer(struct partition *p, const struct err *err)
{
    Drover__MigrateResolveReply reply = DROVER__MIGRATE_RESOLVE_REPLY__INIT;
    struct wire_request *request = p->resolving;
    p->resolving = NULL;
    if (request && err)
        wire_reply_error(request, err);
    else if (request)
        wire_reply(request, &reply.base);
}

static void resolve_resumed(struct partition *p, const struct err *err)
{
    struct err failure, unsaved;
    if (err) {
        resolve_answer(p, err);
        give_up(p);
        return;
    }
    crashpoint("hostd", "resolve-resumed");
    err_set(&failure, ERR_UNAVAILABLE, "handed over, but the destination never took it; resumed here");
    (void)keep_outcome(p, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED, &failure, true, &unsaved);
    settle(p, failure.message);
    resolve_answer(p, NULL);
}

/* VERDICT_RUN: the guest is ours, dead or alive. One that is to be ended is not run again for that: the controllers may
 * end an old generation while a newer one runs elsewhere. */
static void verdict_run(struct partition *p, const char *why)
{
    struct err err, failure = failure_of(p, why);
    bool incoming = p->record.migration.incoming;
    if (incoming && !p->guest && !p->shut_down)
        err_set(&failure, ERR_INTERNAL, "the guest ended on this host as soon as it was taken: %s", why);
    if (p->guest && !p->stopping) {
        text_print(p->end_detail, sizeof p->end_detail, why);
        resume_begin(p, incoming ? destination_resumed : source_resumed, late);
        return;
    }
    if (keep_outcome(p,
            incoming ? DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN : DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED,
            incoming && (p->guest || p->shut_down) ? NULL : &failure, false, &err) < 0) {
        undecided(p, &err);
        return;
    }
    queries_answer(p);
    if (p->guest) {
        partition_end(p, "ended at once", false);
        return;
    }
    char detail[RECORD_TEXT_MAX];
    snprintf(detail, sizeof detail, "%s", p->record.detail[0] ? p->record.detail : why);
    partition_guest_dead(p, p->shut_down, detail);
}

/* VERDICT_END: written down first, because from here on it can only end. */
static void verdict_end(struct partition *p, enum record_phase phase, const char *why)
{
    struct err err, failure = failure_of(p, why);
    bool incoming = p->record.migration.incoming;
    Drover__MigrationOutcome how = DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    if (incoming && decide_never_ran(phase, partition_of_other_boot(p))) {
        how = DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    } else if (incoming) {
        how = DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT;
        err_set(&failure, ERR_UNAVAILABLE, "the guest has ended, and whether it had run here nobody can tell: %s%s",
            phase == RECORD_UNREADABLE ? "the engine's record cannot be read" : "the host was reset meanwhile",
            p->record.migration.disks ? "; its disks stay here, too" : "");
    }
    /* Whoever asked for the preparation hears of its failure from the answer. */
    if (keep_outcome(p, how, incoming ? &failure : NULL, p->starting != NULL, &err) < 0) {
        undecided(p, &err);
        return;
    }
    queries_answer(p);
    if (p->starting)
        p->start_failure = failure;
    p->left = how == DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN;
    partition_end(p, incoming ? failure.message : "moved away", true);
}

/* The guest is this host's and cannot go on: told as moved, because nobody else may run it, and as failed. */
static void lost(struct partition *p, const char *why)
{
    struct err err, failure;
    err_set(&failure, ERR_INTERNAL,
        "the guest is lost: pages of it were still at the other host when its engine here ended for good: %s", why);
    if (keep_outcome(p, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN, &failure, false, &err) < 0) {
        undecided(p, &err);
        return;
    }
    queries_answer(p);
    text_print(p->record.detail, sizeof p->record.detail, failure.message);
    guest_kill(p->guest); /* its death is reported with this reason */
}

static void verdict_lost(struct partition *p, const char *why)
{
    if (!p->guest || p->stopping)
        verdict_run(p, why);
    else
        lost(p, why);
}

static void verdict_doubt(struct partition *p, enum record_phase phase)
{
    const char *detail = phase == RECORD_NONE
                             ? "the host was reset, and whether the guest was handed over before only the "
                               "destination can tell"
                             : "handed over, and the destination's answer is missing";
    p->told = DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
    if (p->record.state != STATE_IN_DOUBT)
        partition_note(p, STATE_IN_DOUBT, detail);
    crashpoint("hostd", "in-doubt");
    queries_answer(p);
    if (p->stopping)
        partition_end(p, "ended while in doubt", true);
}

void migration_decide(struct partition *p, const char *why)
{
    enum record_phase phase = engine_record(p->directory, p->record.migration.id);
    switch (decide_engine_death(p->record.migration.incoming, phase, partition_of_other_boot(p))) {
    case VERDICT_RUN:
        verdict_run(p, why);
        return;
    case VERDICT_LOST:
        verdict_lost(p, why);
        return;
    case VERDICT_SEND:
        if (!sending_resume(p))
            verdict_doubt(p, phase);
        return;
    case VERDICT_DOUBT:
        verdict_doubt(p, phase);
        return;
    case VERDICT_END:
        verdict_end(p, phase, why);
        return;
    }
}

static void lingering_ended(struct partition *p)
{
    engine_free(p->lingering);
    p->lingering = NULL;
    loop_timer_stop(p->farewell);
    struct action *action = p->moving;
    p->moving = NULL;
    if (action)
        migration_launch(p, p->move, action);
    if (p->move)
        drover__migrate_start_request__free_unpacked(p->move, NULL);
    p->move = NULL;
}

static void engine_ended(void *user, const char *why)
{
    struct partition *p = user;
    char last_words[RECORD_TEXT_MAX];
    if (p->lingering) {
        lingering_ended(p);
        return;
    }
    crashpoint("hostd", "engine-ended");
    /* Where the guest died first, its words are those that count. */
    text_print(last_words, sizeof last_words, p->guest || !p->record.detail[0] ? why : p->record.detail);
    if (p->queries)
        text_print(
            last_words, sizeof last_words, p->forsaken ? "the destination has given up" : "fenced by the controllers");
    bool in_order = engine_in_order(p->engine);
    report_clear(&p->last);
    engine_take_report(p->engine, &p->last);
    engine_free(p->engine);
    p->engine = NULL;
    if (p->fence)
        loop_timer_stop(p->fence);
    quotas_divide(p->all, NULL);
    migration_engine_dead(p, in_order, last_words);
}

void migration_prepare_failed(struct partition *p, const struct err *err)
{
    struct err unsaved;
    (void)keep_outcome(p, DROVER__MIGRATION_OUTCOME__MIGRATION_ABORTED, err, true, &unsaved);
    queries_answer(p);
    partition_start_failed(p, err);
}

void migration_resolve(struct partition *p, bool resume, uint64_t generation, struct wire_request *request)
{
    struct err err;
    uint64_t handed_over = p->record.generation;
    p->record.generation = resume ? generation : handed_over;
    if (resume ? partition_save(p, &err) < 0
               : keep_outcome(p, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN, NULL, true, &err) < 0) {
        p->record.generation = handed_over;
        wire_reply_error(request, &err);
        return;
    }
    crashpoint("hostd", "resolve-saved");
    if (resume && p->guest) {
        struct err newer;
        err_set(&newer, ERR_BUSY, "it is being resumed under a later generation");
        resolve_answer(p, &newer);
        p->resolving = request;
        if (p->aftermath == AFTERMATH_NONE)
            resume_begin(p, resolve_resumed, resolve_answer);
        return;
    }
    Drover__MigrateResolveReply reply = DROVER__MIGRATE_RESOLVE_REPLY__INIT;
    wire_reply(request, &reply.base); /* whose it is is settled, and what is left of it here cannot run again */
    if (resume) {
        ledger_end(p->all->env.ledger, p->record.vm_id, generation);
        partition_release(p);
        partition_note(p, STATE_FAILED, "the guest died while it was in doubt");
    } else {
        p->left = true;
        partition_end(p, "moved away", true);
    }
}

void migration_guest_ended(struct partition *p, const char *why)
{
    struct err err;
    resume_drop(p);
    err_set(&err, ERR_UNAVAILABLE, "the guest died while it was being resumed: %s", why);
    resolve_answer(p, &err);
}

void migration_stop(struct partition *p)
{
    resume_drop(p);
    if (p->engine)
        engine_kill(p->engine);
    else if (p->aftermath == AFTERMATH_NONE)
        migration_decide(p, "ended on request");
}

static int engine_created(void *user, struct process_id id, struct err *err)
{
    struct partition *p = user;
    p->record.migration.engine = id;
    int rc = partition_save(p, err);
    crashpoint("hostd", "engine-recorded");
    return rc;
}

/* Its source has not said that it knows, and perhaps is no more. */
static void farewell_over(void *user)
{
    struct partition *p = user;
    if (p->lingering)
        engine_kill(p->lingering);
}

/* The guest runs here, and the engine's record says so: no need to wait until the engine has told everybody. */
static void taken(struct partition *p)
{
    struct err err;
    report_clear(&p->last);
    engine_take_report(p->engine, &p->last);
    if (keep_outcome(p, DROVER__MIGRATION_OUTCOME__MIGRATION_TAKEN, NULL, false, &err) < 0)
        return; /* the engine's end will try again */
    p->lingering = p->engine;
    snprintf(p->arrival, sizeof p->arrival, "%s", p->record.migration.id);
    p->engine = NULL;
    quotas_divide(p->all, NULL);
    if (!p->farewell)
        p->farewell = loop_timer_new(p->all->env.loop, farewell_over, p);
    loop_timer_start(p->farewell, FAREWELL_MS, 0);
    settle(p, "");
}

static void engine_changed(void *user, enum report_change change)
{
    struct partition *p = user;
    struct err err;
    if (p->lingering && change == REPORT_HEARD) {
        outcomes_set_heard(p->all->env.outcomes, p->arrival, engine_report(p->lingering)->heard_us);
        p->all->env.on_change(p->all->env.user);
    }
    if (p->lingering)
        return;
    if (change == REPORT_DONE && p->record.migration.incoming &&
        p->guest && /* else its engine's end tells of its death */
        engine_record(p->directory, p->record.migration.id) == RECORD_OWNER) {
        taken(p);
        return;
    }
    if (change == REPORT_PHASE && p->fenced)
        (void)queries_owned(p);
    const struct report *report = engine_report(p->engine);
    if (change == REPORT_PROGRESS)
        sending_progressed(p);
    if (change == REPORT_LISTENING && !p->record.migration.address[0]) {
        strcpy(p->record.migration.address, report->address);
        if (partition_save(p, &err) < 0)
            log_event(LOG_WARN, "partition.unsaved", "vm=%s reason=%s", p->record.vm_id, LOG_QUOTE(err.message));
    }
    if (change == REPORT_LISTENING && p->starting) {
        crashpoint("hostd", "prepare-listening");
        action_done(p->starting, report->address);
        p->starting = NULL;
    }
    if (change == REPORT_ROUND)
        log_event(LOG_DEBUG, "migration.round", "migration=%s round=%" PRIu32 " remaining_bytes=%" PRIu64,
            p->record.migration.id, report->round, report->remaining_bytes);
    if (p->forsaken && decide_forsaken(engine_record(p->directory, p->record.migration.id)))
        engine_kill(p->engine); /* it had handed over before it was told to stop */
    p->all->env.on_change(p->all->env.user);
}

const struct engine_events migration_engine_events = {engine_created, engine_changed, engine_ended, NULL};
