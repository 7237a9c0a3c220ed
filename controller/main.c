/* drover-controller: one member of the cluster's brain. Reads its configuration, opens state, wire, replica, API and
 * metrics, and runs them on one loop until SIGTERM, when it hands leadership over before it goes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/program.h"
#include "controller/api/api.h"
#include "controller/auth/auth.h"
#include "controller/controller.h"
#include "controller/fleet/claim.h"
#include "controller/placement/evacuation.h"

#define TICK_MS      1000
#define ADMISSION_MS 1000u /* limits may have been changed meanwhile */

/* --- the replicated log and the parts that hang on it --- */

static void fsm_apply(void *user, const uint8_t *entry, size_t len, struct buf *result)
{
    struct controller *c = user;
    state_apply(c->state, entry, len, result);
    runner_sync(c->runner);
}

static void fsm_snapshot(void *user, struct buf *out)
{
    struct controller *c = user;
    state_snapshot(c->state, out);
}

static int fsm_restore(void *user, const uint8_t *data, size_t len, struct err *err)
{
    struct controller *c = user;
    return state_restore(c->state, data, len, err);
}

static void fsm_on_leader(void *user, bool leader)
{
    struct controller *c = user;
    log_event(LOG_INFO, leader ? "leader.begun" : "leader.ended", "name=%s", c->options.name);
    c->leader = leader;
    c->leader_ms = clock_now_ms();
    fleet_clear(c->fleet);
    claims_clear(c->claims);
    placement_reset(c->placement);
    runner_lead(c->runner, leader);
    if (leader)
        keeper_note_members(c);
}

void controller_leader_address(const struct controller *c, char out[WIRE_ADDRESS_MAX])
{
    struct replica_status status;
    struct state_member member;
    out[0] = '\0';
    replica_status(c->replica, &status);
    if (state_member(c->state, status.leader_name, &member))
        snprintf(out, WIRE_ADDRESS_MAX, "%s", member.api_address);
    for (size_t i = 0; i < c->options.member_count && !out[0]; i++)
        if (strcmp(c->options.members[i].name, status.leader_name) == 0)
            snprintf(out, WIRE_ADDRESS_MAX, "%s", c->options.members[i].api_address);
}

/* --- what jobs see and do --- */

static bool env_host(void *user, const char *name, struct job_host *out)
{
    struct controller *c = user;
    struct state_host known;
    if (!state_host(c->state, name, &known))
        return false;
    uint64_t now_ms = clock_now_ms();
    const struct fleet_host *host = fleet_find(c->fleet, name);
    *out = (struct job_host){.up = host && host->peer && fleet_up(c->fleet, host, now_ms),
        .missed = !(host && fleet_up(c->fleet, host, now_ms)) && now_ms - c->leader_ms >= fleet_lease_most_ms(c->fleet),
        .facts = host ? host->facts : NULL,
        .shutting_down = host && host->shutting_down};
    return true;
}

static bool env_partition(void *user, const char *host, const char *vm_id, struct job_partition *out)
{
    struct controller *c = user;
    const struct fleet_host *session = fleet_find(c->fleet, host);
    const struct fleet_partition *p = session ? fleet_partition(session, vm_id) : NULL;
    if (!p)
        return false;
    *out = (struct job_partition){p->state, p->generation, p->uptime_ms};
    return true;
}

static int env_place(void *user, const char *vm_id, const char *exclude, const Drover__MigrationOptions *options,
    struct err *err, char host[STATE_NAME_MAX], char reason[256])
{
    struct controller *c = user;
    return placement_choose(c->placement, vm_id, exclude, options, clock_now_ms(), err, host, reason);
}

/* Whom it lets in stays let in when that is counted, so it holds until a job has come, gone on or gone. */
static bool env_admit(void *user, uint64_t job_id, char reason[256])
{
    struct controller *c = user;
    uint64_t now_ms = clock_now_ms(), revision = runner_revision(c->runner);
    if (!c->admission || c->admission_revision != revision || now_ms - c->admission_ms >= ADMISSION_MS) {
        struct optimizer_limits limits;
        struct admission_move *moves;
        evacuation_limits(c->state, &limits);
        size_t count = runner_moves(c->runner, &moves);
        admission_free(c->admission);
        c->admission = admission_new(moves, count, &limits);
        c->admission_revision = revision;
        c->admission_ms = now_ms;
        free(moves);
    }
    return admission_ask(c->admission, job_id, reason);
}

static void env_evacuate(void *user, const char *host, size_t max, struct job_plan *out)
{
    struct controller *c = user;
    evacuation_plan(c->state, c->fleet, &c->options.optimizer, host, clock_now_ms(), max, out);
}

static void run_submit(void *user, Drover__Command *command, proposer_fn fn, void *fn_user)
{
    proposer_submit(((struct controller *)user)->replica, command, fn, fn_user);
}

static void run_call(void *user, const char *host, uint32_t method, const ProtobufCMessage *request,
    uint32_t deadline_ms, wire_reply_fn fn, void *fn_user)
{
    struct controller *c = user;
    fleet_call(c->loop, c->fleet, host, method, request, deadline_ms, fn, fn_user);
}

static struct replica_member member_from(const Drover__MemberPut *m)
{
    struct replica_member member = {.role = REPLICA_VOTER};
    snprintf(member.name, sizeof member.name, "%s", m->name);
    snprintf(member.address, sizeof member.address, "%s", m->raft_address);
    ENSURE(m->public_key.len == KEY_BYTES);
    memcpy(member.public_key, m->public_key.data, KEY_BYTES);
    return member;
}

static void run_member_add(void *user, const Drover__MemberPut *m, replica_done_fn fn, void *fn_user)
{
    struct replica_member member = member_from(m);
    replica_add(((struct controller *)user)->replica, &member, fn, fn_user);
}

static void run_member_withdraw(void *user, const Drover__MemberPut *m, replica_done_fn fn, void *fn_user)
{
    struct replica_member member = member_from(m);
    replica_withdraw(((struct controller *)user)->replica, &member, fn, fn_user);
}

static void run_member_remove(void *user, const char *name, replica_done_fn fn, void *fn_user)
{
    replica_remove(((struct controller *)user)->replica, name, fn, fn_user);
}

static void run_finished(void *user, const struct state_job *job)
{
    struct controller *c = user;
    metrics_job_finished(c, job);
    if (job->job->kind == DROVER__JOB_KIND__JOB_VM_MIGRATE)
        placement_moved(c->placement, job->data->vm_id, clock_now_ms());
    if (job->job->kind == DROVER__JOB_KIND__JOB_HOST_REMOVE && job->job->state == DROVER__JOB_STATE__JOB_SUCCEEDED) {
        fleet_forget(c->fleet, job->job->target);
        claims_forget(c->claims, job->job->target);
        struct principal gone = {.kind = PRINCIPAL_HOST};
        snprintf(gone.name, sizeof gone.name, "%s", job->job->target);
        wire_server_drop(c->server, &gone);
    }
}

/* --- life of the process --- */

static void tick(void *user)
{
    struct controller *c = user;
    if (c->leader)
        balance_tick(c);
}

static void replica_gone(void *user)
{
    struct controller *c = user;
    c->replica = NULL;
    wire_server_close(c->server); /* what has arrived already is not asked of a log that is gone */
    c->server = NULL;
    uv_stop(c->loop);
}

static void stop(void *user)
{
    struct controller *c = user;
    if (c->closing)
        return;
    c->closing = true;
    log_event(LOG_INFO, "controller.stopping", "name=%s", c->options.name);
    c->leader = false;
    runner_lead(c->runner, false);
    loop_timer_stop(c->tick);
    exporter_close(c->exporter);
    c->exporter = NULL;
    replica_close(c->replica, replica_gone, c);
}

static void list_members(const struct options *options, struct replica_member out[static OPTIONS_MEMBERS_MAX])
{
    for (size_t i = 0; i < options->member_count; i++) {
        const struct state_member *from = &options->members[i];
        out[i] = (struct replica_member){.role = REPLICA_VOTER};
        snprintf(out[i].name, sizeof out[i].name, "%s", from->name);
        snprintf(out[i].address, sizeof out[i].address, "%s", from->raft_address);
        memcpy(out[i].public_key, from->public_key, KEY_BYTES);
    }
}

static int open_replica(struct controller *c, struct err *err)
{
    struct replica_member members[OPTIONS_MEMBERS_MAX];
    list_members(&c->options, members);
    struct replica_fsm fsm = {c, fsm_apply, fsm_snapshot, fsm_restore, fsm_on_leader};
    struct replica_options options = {.name = c->options.name,
        .directory = c->options.directory,
        .listen = c->options.raft_listen,
        .election_ms = (uint32_t)c->options.election_ms,
        .heartbeat_ms = (uint32_t)c->options.raft_heartbeat_ms,
        .snapshot_threshold = (uint32_t)c->options.snapshot_threshold};
    return replica_open(
        c->wire, c->loop, &options, &fsm, members, c->options.member_count, c->options.join, err, &c->replica);
}

static void make_parts(struct controller *c)
{
    struct placement_options placement = {
        c->options.optimizer, c->options.optimizer_automatic, c->options.settle_s * 1000};
    c->state = state_new();
    c->fleet = fleet_new((uint32_t)c->options.lease_ms);
    c->claims = claims_new();
    c->placement = placement_new(c->state, c->fleet, &placement);
    struct runner_options runner = {.loop = c->loop,
        .env = {c->state, c, env_host, env_partition, env_place, env_admit, env_evacuate},
        .user = c,
        .submit = run_submit,
        .call = run_call,
        .member_add = run_member_add,
        .member_remove = run_member_remove,
        .member_withdraw = run_member_withdraw,
        .finished = run_finished};
    c->runner = runner_new(&runner);
    c->tick = loop_timer_new(c->loop, tick, c);
    metrics_setup(c);
}

/* The key in the file must be the one the others know this member by. */
static int check_key(const struct controller *c, const struct key_pair *key, struct err *err)
{
    for (size_t i = 0; i < c->options.member_count; i++)
        if (strcmp(c->options.members[i].name, c->options.name) == 0 &&
            memcmp(c->options.members[i].public_key, key->public_key, KEY_BYTES) != 0)
            return err_set(err, ERR_INVALID,
                "%s is not the secret key of the public key that cluster.member gives for %s", c->options.key,
                c->options.name);
    return 0;
}

static int open_all(struct controller *c, struct auth *auth, struct err *err)
{
    struct key_pair key;
    if (key_load(c->options.key, err, &key) < 0)
        return err_wrap(err, "key node.key");
    int rc = check_key(c, &key, err);
    if (rc == 0)
        rc = wire_new(c->loop, &key, "drover-controller " DROVER_VERSION, auth_lookup, auth, err, &c->wire);
    key_wipe(&key, sizeof key);
    if (rc < 0)
        return -1;
    struct wire_options api = {.handler = api_handle, .on_peer = api_peer, .user = c};
    if (open_replica(c, err) < 0)
        return err_wrap(err, "replicated log");
    if (wire_server_open(c->wire, c->options.api_listen, &api, err, &c->server) < 0)
        return err_wrap(err, "key api.listen");
    if (c->options.metrics_listen[0] &&
        exporter_open(c->loop, c->options.metrics_listen, metrics_collect, c, err, &c->exporter) < 0)
        return err_wrap(err, "key metrics.listen");
    return loop_on_stop(c->loop, stop, c, err);
}

static int serve(struct options *options)
{
    struct err err;
    uv_loop_t loop;
    struct controller c = {.options = *options, .loop = &loop};
    ENSURE(uv_loop_init(&loop) == 0);
    make_parts(&c);
    struct auth auth = {&c.options, c.state, &c.replica};
    int status = 0;
    if (open_all(&c, &auth, &err) < 0) {
        log_event(LOG_ERROR, "controller.cannot-start", "cause=%s", LOG_QUOTE(err.message));
        status = err_exit_status(err.code);
        exporter_close(c.exporter);
        if (c.replica)
            replica_close(c.replica, replica_gone, &c);
        else
            uv_stop(&loop);
    } else {
        log_event(LOG_INFO, "controller.started", "name=%s api=%s version=" DROVER_VERSION, c.options.name,
            wire_server_address(c.server));
        loop_timer_start(c.tick, TICK_MS, TICK_MS);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    loop_stop_listening(&loop);
    wire_server_close(c.server);
    wire_free(c.wire);
    runner_free(c.runner);
    loop_timer_free(c.tick);
    loop_close(&loop);
    placement_free(c.placement);
    fleet_free(c.fleet);
    claims_free(c.claims);
    admission_free(c.admission);
    state_free(c.state);
    log_event(LOG_INFO, "controller.stopped", "name=%s", options->name);
    return status;
}

/* --found: writes the first entry of a new cluster's log, and ends. */
static int found(const struct options *options)
{
    struct err err;
    struct replica_member members[OPTIONS_MEMBERS_MAX];
    struct replica_options replica = {.name = options->name, .directory = options->directory};
    list_members(options, members);
    int rc = options->join ? err_set(&err, ERR_INVALID,
                                 "cluster.join is true: a member that joins gets the others' log and founds none")
                           : replica_found(&replica, members, options->member_count, &err);
    if (rc < 0) {
        fprintf(stderr, "drover-controller: %s\n", err.message);
        return err_exit_status(err.code);
    }
    printf("%s: founded a cluster of %zu in %s\n", options->name, options->member_count, options->directory);
    return 0;
}

static const struct program_switch switches[] = {
    {"--found", "once, on each of the first controllers of a new cluster: write the first entry of its log into\n"
                "node.directory, which must be empty, and end. Never for a controller that has lost its directory:\n"
                "that one is removed, and added again with cluster.join = true."},
    {NULL},
};
static const struct program program = {
    "drover-controller", "one of the cluster's controllers", "--config FILE [--found]", switches, options_print_manual};

int main(int argc, char **argv)
{
    struct err err;
    struct options options;
    struct program_args args;
    int status;
    if (!program_args(&program, argc, argv, &status, &args))
        return status;
    if (options_load(args.config, &err, &options) < 0) {
        fprintf(stderr, "drover-controller: %s\n", err.message);
        return err_exit_status(err.code);
    }
    crashpoint_open(0);
    log_setup("drover-controller", (enum log_level)log_level_parse(options.log_level));
    status = args.switches ? found(&options) : serve(&options);
    options_free(&options);
    return status;
}
