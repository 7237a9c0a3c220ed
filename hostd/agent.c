#include "hostd/agent.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "proto/api.pb-c.h"
#include "proto/bounded.h"
#include "proto/host.pb-c.h"

#define HELLO_DEADLINE_MS       1000
#define SEARCH_INTERVAL_MS      150 /* a new leader is to be found within a second of its election */
#define OUTCOME_DEADLINE_MS     2000
#define OUTCOME_RETRY_MS        500
#define POKE_DELAY_MS           5 /* gathers what changes together */
#define HEARTBEAT_ANSWER_MIN_MS 400
#define HEARTBEAT_MIN_MS        100
#define HEARTBEAT_MAX_MS        10000

enum agent_state { AGENT_SEARCHING, AGENT_UP };

struct controller {
    struct agent *agent;
    struct wire_client *client;
    char address[WIRE_ADDRESS_MAX];
    bool hello_under_way;
    char refused[ERR_MESSAGE_MAX]; /* why the last hello was: said once */
};

struct agent {
    struct agent_options options;
    struct controller controllers[OPTIONS_CONTROLLERS_MAX];
    size_t controller_count;
    enum agent_state state;
    struct controller *leader; /* of the session; NULL while searching */
    struct controller *master; /* of the last session: who may order; NULL: there was none */
    uint64_t session;          /* counts sessions, so that answers of an earlier one are known as such */
    uint64_t sequence;         /* of reports */
    uint64_t lease_until_ms;
    bool lease_lost; /* and logged */
    uint32_t heartbeat_ms;
    bool heartbeat_under_way, poked;
    bool outcome_under_way;
    bool outcome_poked;            /* meanwhile there was something new to tell */
    char outcome_id[PATHS_ID_MAX]; /* of the one under way */
    char untold_id[PATHS_ID_MAX];  /* of the last one that was refused, and why: said once */
    enum err_code untold_why;
    struct loop_timer *search, *heartbeat, *lease, *outcome;
    bool closing;
};

/* A call under way: what it was sent for. */
struct call {
    struct agent *agent;
    struct controller *controller;
    uint64_t session, sequence, sent_ms;
    Drover__MigrationOutcome doubt; /* outcomes only: what is not over; UNKNOWN: it is over */
};

static void agent_search(struct agent *agent, const char *why);
static void send_heartbeat(void *user);
static void send_outcome(void *user);
static void say_hello(struct controller *controller);

static struct call *call_make(struct controller *controller)
{
    struct call *call = mem_zalloc(sizeof *call);
    struct agent *agent = controller->agent;
    *call = (struct call){.agent = agent,
        .controller = controller,
        .session = agent->session,
        .sequence = agent->sequence,
        .sent_ms = clock_now_ms()};
    return call;
}

uint64_t agent_lease_left_ms(const struct agent *agent, uint64_t now_ms)
{
    return agent->lease_until_ms > now_ms ? agent->lease_until_ms - now_ms : 0;
}

bool agent_up(const struct agent *agent)
{
    return agent->state == AGENT_UP;
}

static void lease_over(void *user)
{
    struct agent *agent = user;
    uint64_t left_ms = agent_lease_left_ms(agent, clock_now_ms());
    if (left_ms > 0) {
        loop_timer_start(agent->lease, left_ms, 0);
        return;
    }
    agent->lease_lost = true;
    log_event(LOG_WARN, "lease.lost", "consequence=%s",
        LOG_QUOTE("the controllers no longer know that this host's partitions run"));
}

static void lease_renew(struct agent *agent, uint64_t sent_ms, uint32_t lease_ms)
{
    if (sent_ms + lease_ms <= agent->lease_until_ms)
        return;
    agent->lease_until_ms = sent_ms + lease_ms;
    uint64_t left_ms = agent_lease_left_ms(agent, clock_now_ms());
    if (left_ms > 0 && agent->lease_lost) {
        agent->lease_lost = false;
        log_event(LOG_INFO, "lease.regained", "left_ms=%" PRIu64, left_ms);
    }
    loop_timer_start(agent->lease, left_ms, 0);
}

static struct controller *controller_at(struct agent *agent, const char *address)
{
    for (size_t i = 0; i < agent->controller_count; i++)
        if (strcmp(agent->controllers[i].address, address) == 0)
            return &agent->controllers[i];
    return NULL;
}

static void session_begin(struct controller *controller, const Drover__HostHelloReply *reply)
{
    struct agent *agent = controller->agent;
    agent->state = AGENT_UP;
    agent->leader = agent->master = controller;
    controller->refused[0] = '\0';
    agent->session++;
    agent->heartbeat_ms = reply->heartbeat_ms < HEARTBEAT_MIN_MS   ? HEARTBEAT_MIN_MS
                          : reply->heartbeat_ms > HEARTBEAT_MAX_MS ? HEARTBEAT_MAX_MS
                                                                   : reply->heartbeat_ms;
    agent->heartbeat_under_way = false;
    agent->outcome_under_way = false;
    loop_timer_stop(agent->search);
    partitions_set_host_name(agent->options.partitions, reply->host_name);
    log_event(LOG_INFO, "session.begun", "controller=%s name=%s lease_ms=%" PRIu32 " heartbeat_ms=%" PRIu32,
        controller->address, LOG_QUOTE(reply->host_name), reply->lease_ms, agent->heartbeat_ms);
    loop_timer_start(agent->heartbeat, agent->heartbeat_ms, agent->heartbeat_ms);
    loop_timer_start(agent->outcome, 0, 0);
}

static void note_refusal(struct controller *controller, const struct err *err)
{
    if (strcmp(controller->refused, err->message) == 0)
        return;
    snprintf(controller->refused, sizeof controller->refused, "%s", err->message);
    log_event(LOG_WARN, "hello.refused", "controller=%s reason=%s", controller->address, LOG_QUOTE(err->message));
}

static void hello_answered(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct call *call = user;
    struct agent *agent = call->agent;
    struct controller *controller = call->controller;
    controller->hello_under_way = false;
    if (agent->closing || agent->state == AGENT_UP) {
        free(call);
        return;
    }
    if (err) {
        struct controller *leader = err->code == ERR_NOT_LEADER ? controller_at(agent, err->message) : NULL;
        if (err->code != ERR_NOT_LEADER && err->code != ERR_UNAVAILABLE && err->code != ERR_TIMEOUT)
            note_refusal(controller, err);
        if (leader && leader != controller)
            say_hello(leader);
    } else {
        Drover__HostHelloReply *reply = BOUNDED_UNPACK(host_hello_reply, body, len);
        if (reply) {
            session_begin(controller, reply);
            lease_renew(agent, call->sent_ms, reply->lease_ms);
            partitions_heard(agent->options.partitions, call->sequence);
            drover__host_hello_reply__free_unpacked(reply, NULL);
        } else {
            log_event(LOG_WARN, "hello.garbled", "controller=%s", controller->address);
        }
    }
    free(call);
}

static void say_hello(struct controller *controller)
{
    struct agent *agent = controller->agent;
    if (controller->hello_under_way || !wire_client_connected(controller->client))
        return;
    struct reports reports;
    struct stats_history history;
    Drover__HostHelloRequest hello = DROVER__HOST_HELLO_REQUEST__INIT;
    agent->sequence++;
    partitions_report(agent->options.partitions, agent->sequence, true, &reports);
    stats_history(agent->options.stats, &history);
    hello.history = &history.message;
    hello.facts = (Drover__HostFacts *)(uintptr_t)agent->options.facts;
    hello.stand_in = agent->options.stand_in;
    hello.shutting_down = partitions_shutting_down(agent->options.partitions);
    hello.partitions = reports.list;
    hello.n_partitions = reports.count;
    controller->hello_under_way = true;
    wire_call(wire_client_peer(controller->client), DROVER__METHOD__HOST_HELLO, &hello.base, HELLO_DEADLINE_MS,
        hello_answered, call_make(controller));
    reports_free(&reports);
}

static void search_due(void *user)
{
    struct agent *agent = user;
    for (size_t i = 0; i < agent->controller_count; i++)
        say_hello(&agent->controllers[i]);
}

static void agent_search(struct agent *agent, const char *why)
{
    if (agent->state == AGENT_UP)
        log_event(LOG_WARN, "session.ended", "controller=%s reason=%s", agent->leader->address, LOG_QUOTE(why));
    agent->state = AGENT_SEARCHING;
    agent->leader = NULL;
    loop_timer_stop(agent->heartbeat);
    loop_timer_stop(agent->outcome);
    loop_timer_start(agent->search, 0, SEARCH_INTERVAL_MS);
}

static void heartbeat_answered(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct call *call = user;
    struct agent *agent = call->agent;
    if (agent->closing || agent->state != AGENT_UP || call->session != agent->session) {
        free(call);
        return;
    }
    agent->heartbeat_under_way = false;
    Drover__HeartbeatReply *reply = err ? NULL : BOUNDED_UNPACK(heartbeat_reply, body, len);
    if (!reply) {
        agent_search(agent, err ? err->message : "its answer makes no sense");
    } else if (reply->say_hello) {
        agent_search(agent, "it does not know this session");
    } else {
        lease_renew(agent, call->sent_ms, reply->lease_ms);
        agent->options.stand_in = false; /* it is the host by now: another time somebody would have to say so again */
        partitions_heard(agent->options.partitions, call->sequence);
        for (size_t i = 0; i < reply->n_deleted; i++)
            visits_forget(agent->options.visits, reply->deleted[i]);
        if (agent->poked)
            agent_poke(agent);
    }
    if (reply)
        drover__heartbeat_reply__free_unpacked(reply, NULL);
    free(call);
}

/* Half an interval: a leader that hangs is given up within one and a half. */
static uint32_t heartbeat_deadline_ms(const struct agent *agent)
{
    uint32_t half = agent->heartbeat_ms / 2;
    return half < HEARTBEAT_ANSWER_MIN_MS ? HEARTBEAT_ANSWER_MIN_MS : half;
}

static void send_heartbeat(void *user)
{
    struct agent *agent = user;
    if (agent->state != AGENT_UP || agent->heartbeat_under_way)
        return;
    struct reports reports;
    Drover__HeartbeatRequest heartbeat = DROVER__HEARTBEAT_REQUEST__INIT;
    Drover__Load load = *stats_host(agent->options.stats);
    heartbeat.sequence = ++agent->sequence;
    partitions_report(agent->options.partitions, agent->sequence, false, &reports);
    heartbeat.load = &load;
    heartbeat.shutting_down = partitions_shutting_down(agent->options.partitions);
    heartbeat.partitions = reports.list;
    heartbeat.n_partitions = reports.count;
    heartbeat.visits = visits_list(agent->options.visits, &heartbeat.n_visits);
    agent->heartbeat_under_way = true;
    agent->poked = false;
    wire_call(wire_client_peer(agent->leader->client), DROVER__METHOD__HOST_HEARTBEAT, &heartbeat.base,
        heartbeat_deadline_ms(agent), heartbeat_answered, call_make(agent->leader));
    reports_free(&reports);
    free(heartbeat.visits);
}

void agent_poke(struct agent *agent)
{
    if (!agent || agent->closing || agent->state != AGENT_UP)
        return;
    agent->poked = true;
    if (!agent->heartbeat_under_way)
        loop_timer_start(agent->heartbeat, POKE_DELAY_MS, agent->heartbeat_ms);
    agent->outcome_poked = agent->outcome_under_way;
    if (!agent->outcome_under_way)
        loop_timer_start(agent->outcome, POKE_DELAY_MS, 0);
}

static void outcome_answered(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct call *call = user;
    struct agent *agent = call->agent;
    (void)body;
    (void)len;
    if (agent->closing || call->session != agent->session) {
        free(call);
        return;
    }
    agent->outcome_under_way = false;
    if (call->doubt == DROVER__MIGRATION_OUTCOME__MIGRATION_UNANSWERED) {
        partitions_doubt_told(agent->options.partitions, agent->outcome_id, call->doubt); /* they poll, too */
    } else if (err) {
        bool known = err->code == agent->untold_why && strcmp(agent->untold_id, agent->outcome_id) == 0;
        log_event(known ? LOG_DEBUG : LOG_WARN, "outcome.untold", "migration=%s reason=%s", agent->outcome_id,
            LOG_QUOTE(err->message));
        agent->untold_why = err->code;
        strcpy(agent->untold_id, agent->outcome_id);
    } else if (call->doubt) {
        partitions_doubt_told(agent->options.partitions, agent->outcome_id, call->doubt);
    } else {
        outcomes_set_told(agent->options.outcomes, agent->outcome_id);
    }
    if (agent->state == AGENT_UP)
        loop_timer_start(agent->outcome, err && !agent->outcome_poked ? OUTCOME_RETRY_MS : 0, 0);
    free(call);
}

/* One at a time, the next as soon as one is taken note of. One that is refused steps back behind the others. */
static void send_outcome(void *user)
{
    struct agent *agent = user;
    if (agent->state != AGENT_UP || agent->outcome_under_way)
        return;
    Drover__MigrateOutcomeRequest doubt = DROVER__MIGRATE_OUTCOME_REQUEST__INIT;
    const Drover__MigrateOutcomeRequest *outcome = outcomes_untold(agent->options.outcomes, agent->outcome_id);
    if (!outcome)
        outcome = outcomes_untold(agent->options.outcomes, NULL);
    const struct record *record = outcome ? NULL : partitions_doubt(agent->options.partitions, &doubt.outcome);
    if (record) {
        doubt.migration_id = (char *)(uintptr_t)record->migration.id;
        doubt.vm_id = (char *)(uintptr_t)record->vm_id;
        outcome = &doubt;
    }
    if (!outcome)
        return;
    snprintf(agent->outcome_id, sizeof agent->outcome_id, "%s", outcome->migration_id);
    struct call *call = call_make(agent->leader);
    call->doubt = doubt.outcome;
    agent->outcome_under_way = true;
    agent->outcome_poked = false;
    wire_call(wire_client_peer(agent->leader->client), DROVER__METHOD__MIGRATE_OUTCOME, &outcome->base,
        OUTCOME_DEADLINE_MS, outcome_answered, call);
}

static void peer_changed(void *user, struct wire_peer *peer, bool up)
{
    struct controller *controller = user;
    struct agent *agent = controller->agent;
    (void)peer;
    if (agent->closing)
        return;
    log_event(LOG_DEBUG, up ? "controller.connected" : "controller.lost", "address=%s", controller->address);
    if (up && agent->state == AGENT_SEARCHING)
        say_hello(controller);
    else if (!up && controller == agent->leader)
        agent_search(agent, "connection lost");
}

/* A controller that leads no more may not know it yet: one that stood still goes on with what it was about to order,
 * from what it knew then. Whoever leads after it orders nothing before this host has begun a session with it, and from
 * then on the earlier one has no say. So it is the session that counts, and for as long as there is no other the last
 * one, whether or not it can be renewed at the moment. */
static bool may_order(const struct controller *controller)
{
    return controller == controller->agent->master;
}

static void refuse_order(struct controller *controller, struct wire_request *request, uint32_t method)
{
    struct err err;
    log_event(LOG_WARN, "order.refused", "controller=%s method=%" PRIu32 " reason=%s", controller->address, method,
        LOG_QUOTE("this host's session is with another controller"));
    if (!request)
        return;
    err_set(&err, ERR_UNAVAILABLE, "the host's session is with another controller");
    wire_reply_error(request, &err);
}

static void request_arrived(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    struct controller *controller = user;
    struct agent *agent = controller->agent;
    if (!may_order(controller)) {
        refuse_order(controller, request, method);
        return;
    }
    agent->options.handler(agent->options.handler_user, request, peer, method, body, len);
}

int agent_open(const struct agent_options *options, struct err *err, struct agent **out)
{
    struct agent *agent = mem_zalloc(sizeof *agent);
    agent->options = *options;
    agent->search = loop_timer_new(options->loop, search_due, agent);
    agent->heartbeat = loop_timer_new(options->loop, send_heartbeat, agent);
    agent->lease = loop_timer_new(options->loop, lease_over, agent);
    agent->outcome = loop_timer_new(options->loop, send_outcome, agent);
    for (size_t i = 0; i < options->controller_count; i++) {
        struct controller *controller = &agent->controllers[i];
        struct wire_options wire = {.handler = request_arrived, .on_peer = peer_changed, .user = controller};
        controller->agent = agent;
        strcpy(controller->address, options->controllers[i].address);
        if (wire_client_open(
                options->wire, controller->address, options->controllers[i].key, &wire, err, &controller->client) < 0) {
            agent_close(agent);
            return err_wrap(err, "controller %s", options->controllers[i].address);
        }
        agent->controller_count++;
    }
    agent_search(agent, "");
    *out = agent;
    return 0;
}

void agent_close(struct agent *agent)
{
    if (!agent)
        return;
    agent->closing = true;
    for (size_t i = 0; i < agent->controller_count; i++)
        wire_client_close(agent->controllers[i].client);
    loop_timer_free(agent->search);
    loop_timer_free(agent->heartbeat);
    loop_timer_free(agent->lease);
    loop_timer_free(agent->outcome);
    free(agent);
}
