/* Who asks how a migration stands: answered at once, or once it is decided. */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/crashpoint.h"
#include "base/loop.h"
#include "hostd/partition/private.h"

#define FENCE_MS 2000u /* an engine that has not followed by then is killed */

static struct partition *find_migration(struct partitions *ps, const char *migration_id)
{
    struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        if (p->record.migration.id[0] && strcmp(p->record.migration.id, migration_id) == 0)
            return p;
    }
    return NULL;
}

static void answer(struct wire_request *request, Drover__MigrationOutcome outcome, Drover__MigrationRecord *record)
{
    Drover__MigrateQueryReply reply = DROVER__MIGRATE_QUERY_REPLY__INIT;
    reply.outcome = outcome;
    reply.record = record;
    wire_reply(request, &reply.base);
}

/* True: answered from what is over. */
static bool answer_kept(struct partitions *ps, const char *migration_id, struct wire_request *request)
{
    const Drover__MigrateOutcomeRequest *kept = outcomes_find(ps->env.outcomes, migration_id);
    Drover__MigrateQueryReply reply = DROVER__MIGRATE_QUERY_REPLY__INIT;
    if (!kept)
        return false;
    reply.outcome = kept->outcome;
    reply.error = kept->error;
    reply.record = kept->record;
    reply.unresumed = kept->unresumed;
    wire_reply(request, &reply.base);
    return true;
}

Drover__MigrationOutcome queries_outcome_so_far(const struct partition *p)
{
    if (p->record.state == STATE_IN_DOUBT)
        return DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT;
    return p->engine && engine_report(p->engine)->unanswered ? DROVER__MIGRATION_OUTCOME__MIGRATION_UNANSWERED
                                                             : DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY;
}

static void answer_so_far(const struct partition *p, struct wire_request *request)
{
    answer(request, queries_outcome_so_far(p), p->engine ? engine_report(p->engine)->record : NULL);
}

/* ---- those who wait ---- */

static void wait_for_decision(struct partition *p, struct wire_request *request)
{
    struct query *query = mem_zalloc(sizeof *query);
    query->request = request;
    LL_PREPEND(p->queries, query);
}

static struct wire_request *next_waiting(struct partition *p)
{
    struct query *first = p->queries;
    if (!first)
        return NULL;
    struct wire_request *request = first->request;
    p->queries = first->next;
    free(first);
    return request;
}

void queries_answer(struct partition *p)
{
    bool decided = p->record.state == STATE_IN_DOUBT || outcomes_find(p->all->env.outcomes, p->record.migration.id);
    struct wire_request *request;
    while (decided && (request = next_waiting(p)))
        if (!answer_kept(p->all, p->record.migration.id, request))
            answer_so_far(p, request);
}

void queries_refuse(struct partition *p, const struct err *err)
{
    struct wire_request *request;
    while ((request = next_waiting(p)))
        wire_reply_error(request, err);
}

/* ---- requests ---- */

/* An engine that has handed over asks until it is answered, because its pages may be needed: it would ask for good.
 * What it has written down says what it had come to; only the controllers make anything of a doubt. */
static void forsake(struct partition *p, struct wire_request *request)
{
    crashpoint("hostd", "forsake-received");
    p->forsaken = true;
    wait_for_decision(p, request);
    if (p->engine && decide_forsaken(engine_record(p->directory, p->record.migration.id)))
        engine_kill(p->engine);
    else if (p->engine)
        engine_cancel(p->engine);
    else if (p->aftermath == AFTERMATH_NONE)
        migration_decide(p, "the destination has given up");
    crashpoint("hostd", "forsaken");
}

void migrate_cancel(struct partitions *ps, const Drover__MigrateCancelRequest *m, struct wire_request *request)
{
    if (answer_kept(ps, m->migration_id, request))
        return;
    struct partition *p = find_migration(ps, m->migration_id);
    if (!p) {
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL);
        return;
    }
    if (m->destination_gone && p->record.state == STATE_OUTGOING) {
        forsake(p, request);
        return;
    }
    if (p->engine && !p->record.migration.incoming)
        engine_cancel(p->engine);
    answer_so_far(p, request);
}

/* Nothing of the migration is known here. Its preparation may still be on its way, and must find the door shut. Whether
 * it ran here before this host lost its memory, nobody can say: so the answer stays "unknown". */
static void fence_unknown(struct partitions *ps, const char *migration_id, struct wire_request *request)
{
    struct err err;
    Drover__MigrateOutcomeRequest never = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    never.migration_id = (char *)(uintptr_t)migration_id;
    never.outcome = DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
    if (outcomes_add(ps->env.outcomes, &never, true, &err) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    crashpoint("hostd", "fence-recorded");
    answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL);
}

/* An engine that has become the owner may still be fetching pages, and whoever ended it would end the guest: it is left
 * alone, and says when it is done. */
static bool engine_owns(const struct partition *p)
{
    enum record_phase phase = engine_record(p->directory, p->record.migration.id);
    return p->engine && (phase == RECORD_OWNER || phase == RECORD_FETCHING);
}

bool queries_owned(struct partition *p)
{
    struct wire_request *request;
    if (!p->fenced || !engine_owns(p))
        return false;
    p->fenced = false;
    loop_timer_stop(p->fence);
    while ((request = next_waiting(p)))
        answer_so_far(p, request);
    return true;
}

/* It did not follow, so it is not at work either. */
static void fence_over(void *user)
{
    struct partition *p = user;
    if (p->fenced && p->engine && !queries_owned(p))
        engine_kill(p->engine);
}

/* Decides for good: with the engine dead, its record file cannot change any more. It ends itself, because it may be
 * about to become the owner, and only it knows for sure that it is not: either it stops before, or it says so. */
static void fence(struct partition *p, struct wire_request *request)
{
    crashpoint("hostd", "fence-received");
    if (engine_owns(p)) {
        answer_so_far(p, request);
        return;
    }
    wait_for_decision(p, request);
    if (p->engine && !p->fenced) {
        p->fenced = true;
        if (!p->fence)
            p->fence = loop_timer_new(p->all->env.loop, fence_over, p);
        loop_timer_start(p->fence, FENCE_MS, 0);
        engine_cancel(p->engine);
    } else if (!p->engine && p->aftermath == AFTERMATH_NONE) {
        migration_decide(p, "fenced by the controllers");
    }
}

void migrate_query(struct partitions *ps, const Drover__MigrateQueryRequest *m, struct wire_request *request)
{
    struct err err;
    if (!paths_migration_id_ok(m->migration_id)) {
        err_set(&err, ERR_INVALID, "migration_id is missing or malformed");
        wire_reply_error(request, &err);
        return;
    }
    if (answer_kept(ps, m->migration_id, request))
        return;
    struct partition *p = find_migration(ps, m->migration_id);
    if (p && m->fence && p->record.state == STATE_INCOMING)
        fence(p, request);
    else if (p)
        answer_so_far(p, request);
    else if (m->fence)
        fence_unknown(ps, m->migration_id, request);
    else
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL);
}
