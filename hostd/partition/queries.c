/* Who asks how a migration stands: answered at once, or once it is decided. */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/crashpoint.h"
#include "hostd/partition/private.h"

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

static void answer(struct wire_request *request, Drover__MigrationOutcome outcome, Drover__ErrorInfo *error,
    Drover__MigrationRecord *record)
{
    Drover__MigrateQueryReply reply = DROVER__MIGRATE_QUERY_REPLY__INIT;
    reply.outcome = outcome;
    reply.error = error;
    reply.record = record;
    wire_reply(request, &reply.base);
}

/* True: answered from what is over. */
static bool answer_kept(struct partitions *ps, const char *migration_id, struct wire_request *request)
{
    const Drover__MigrateOutcomeRequest *kept = outcomes_find(ps->env.outcomes, migration_id);
    if (kept)
        answer(request, kept->outcome, kept->error, kept->record);
    return kept != NULL;
}

static void answer_so_far(const struct partition *p, struct wire_request *request)
{
    bool doubt = p->record.state == STATE_IN_DOUBT;
    answer(request, doubt ? DROVER__MIGRATION_OUTCOME__MIGRATION_DOUBT : DROVER__MIGRATION_OUTCOME__MIGRATION_UNDER_WAY,
        NULL, p->engine ? engine_report(p->engine)->record : NULL);
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
    p->forsaken = true;
    wait_for_decision(p, request);
    if (p->engine && decide_forsaken(engine_record(p->directory, p->record.migration.id)))
        engine_kill(p->engine);
    else if (p->engine)
        engine_cancel(p->engine);
    else if (!p->resuming)
        migration_decide(p, "the destination has given up");
}

void migrate_cancel(struct partitions *ps, const Drover__MigrateCancelRequest *m, struct wire_request *request)
{
    if (answer_kept(ps, m->migration_id, request))
        return;
    struct partition *p = find_migration(ps, m->migration_id);
    if (!p) {
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL, NULL);
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
    answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL, NULL);
}

/* Decides for good: with the engine dead, its record file cannot change any more. But an engine that has become the
 * owner may still be fetching pages, and whoever ended it would end the guest: it is left alone, and says when it is
 * done. */
static void fence(struct partition *p, struct wire_request *request)
{
    crashpoint("hostd", "fence-received");
    enum record_phase phase = engine_record(p->directory, p->record.migration.id);
    if (p->engine && (phase == RECORD_OWNER || phase == RECORD_FETCHING)) {
        answer_so_far(p, request);
        return;
    }
    wait_for_decision(p, request);
    if (p->engine)
        engine_kill(p->engine);
    else if (!p->resuming)
        migration_decide(p, "fenced by the controllers");
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
        answer(request, DROVER__MIGRATION_OUTCOME__MIGRATION_UNKNOWN, NULL, NULL);
}
