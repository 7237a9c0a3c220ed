/* What hosts send: hello, heartbeats, outcomes of migrations. Who a host is says its key, never the message. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "controller/api/call.h"
#include "controller/fleet/claim.h"
#include "proto/host.pb-c.h"
#include "proto/limits.h"

/* VMs are the host's, or may be handed to it. */
static bool holds_vms(struct state *state, const char *host)
{
    struct state_vm *owned, *arriving;
    size_t count = state_vms_owned(state, host, &owned) + state_vms_arriving(state, host, &arriving);
    free(owned);
    free(arriving);
    return count > 0;
}

/* Is it the host? */
static int hello_check(struct controller *c, const char *name, const Drover__HostHelloRequest *hello, struct err *err)
{
    uint64_t now_ms = clock_now_ms();
    bool news = false;
    if (fleet_facts_check(hello->facts, err) < 0)
        return err_wrap(err, "host %s", name);
    const struct fleet_host *session = fleet_find(c->fleet, name);
    cleanup_pb Drover__HostFacts *logged = state_host_facts(c->state, name);
    const struct claim_known known = {
        .logged = logged,
        .session = session && fleet_up(c->fleet, session, now_ms) ? session->facts : NULL,
        .early = now_ms - c->leader_ms < fleet_lease_most_ms(c->fleet),
        .holds = holds_vms(c->state, name),
    };
    int rc = claims_check(c->claims, name, hello, &known, now_ms, err, &news);
    if (rc < 0 && news)
        log_event(LOG_WARN, "host.rival-refused", "host=%s boot=%s cause=%s", name, LOG_QUOTE(hello->facts->boot_id),
            LOG_QUOTE(err->message));
    return rc;
}

static void host_hello(struct api_call *call)
{
    struct controller *c = call->c;
    const Drover__HostHelloRequest *hello = (const void *)call->message;
    struct fleet_host *host;
    struct err err;
    if (hello_check(c, call->actor.name, hello, &err) < 0) {
        api_fail(call, &err);
        return;
    }
    if (fleet_hello(c->fleet, call->actor.name, call->peer, hello, clock_now_ms(), &err, &host) < 0) {
        log_event(LOG_WARN, "host.hello-refused", "host=%s cause=%s", call->actor.name, LOG_QUOTE(err.message));
        api_fail(call, &err);
        return;
    }
    log_event(LOG_INFO, "host.connected", "host=%s program=%s accelerator=%s partitions=%zu", host->name,
        LOG_QUOTE(host->facts->program), LOG_QUOTE(host->facts->accelerator), host->partition_count);
    runner_host_back(c->runner, host->name);
    keeper_note_facts(c, host);
    Drover__HostHelloReply reply = DROVER__HOST_HELLO_REPLY__INIT;
    reply.lease_ms = fleet_lease_ms(c->fleet);
    reply.heartbeat_ms = (uint32_t)c->options.heartbeat_ms;
    reply.host_name = host->name;
    api_reply(call, &reply);
}

static void host_heartbeat(struct api_call *call)
{
    struct controller *c = call->c;
    const Drover__HeartbeatRequest *heartbeat = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    Drover__HeartbeatReply reply = DROVER__HEARTBEAT_REPLY__INIT;
    struct fleet_host *host = fleet_find(c->fleet, call->actor.name);
    if (!host || host->peer != call->peer) {
        reply.say_hello = true;
        api_reply(call, &reply);
        return;
    }
    if (fleet_heartbeat(c->fleet, host, heartbeat, clock_now_ms(), &err) < 0) {
        api_fail(call, &err);
        return;
    }
    claims_heard(c->claims, host->name, host->facts, clock_now_ms());
    keeper_check(c, host);
    reply.lease_ms = fleet_lease_ms(c->fleet);
    size_t visits = heartbeat->n_visits < LIMITS_VISITS ? heartbeat->n_visits : LIMITS_VISITS;
    reply.deleted = mem_alloc((visits + 1) * sizeof *reply.deleted);
    for (size_t i = 0; i < visits; i++)
        if (!state_vm(c->state, heartbeat->visits[i], &vm))
            reply.deleted[reply.n_deleted++] = heartbeat->visits[i];
    api_reply(call, &reply);
    free(reply.deleted);
}

/* The host may forget the outcome once it has an answer without an error. So that answer is given only when the job
 * that waits for it has ended: then the log holds what came of it. */
static void migrate_outcome(struct api_call *call)
{
    const Drover__MigrateOutcomeRequest *outcome = (const void *)call->message;
    struct err err;
    log_event(LOG_INFO, "migration.outcome", "migration=%s host=%s outcome=%d error=%s",
        LOG_QUOTE(outcome->migration_id), call->actor.name, (int)outcome->outcome,
        outcome->error ? LOG_QUOTE(outcome->error->message) : "none");
    if (runner_outcome(call->c->runner, call->actor.name, outcome)) {
        err_set(&err, ERR_BUSY, "noted, but not in the log yet; tell again");
        api_fail(call, &err);
        return;
    }
    Drover__MigrateOutcomeReply reply = DROVER__MIGRATE_OUTCOME_REPLY__INIT;
    api_reply(call, &reply);
}

const struct api_method api_host_methods[] = {
    {DROVER__METHOD__HOST_HEARTBEAT, API_HOST, &drover__heartbeat_request__descriptor, host_heartbeat},
    {DROVER__METHOD__HOST_HELLO, API_HOST, &drover__host_hello_request__descriptor, host_hello},
    {DROVER__METHOD__MIGRATE_OUTCOME, API_HOST, &drover__migrate_outcome_request__descriptor, migrate_outcome},
    {0},
};
