/* The turn: everything a replica does of its own accord, on the loop, outside of libraft and of its users' calls.
 * libraft's every step arms it (heartbeats too, so that it comes at least that often), and so does every call of
 * replica.h. */
#include <string.h>
#include <unistd.h>

#include "base/ensure.h"
#include "raft/internal.h"

#define CLOSE_BOUND_MS 5000u

/* ---- leadership ---- */

struct barrier {
    struct raft_barrier raft;
    struct replica *replica;
    raft_term term;
};

static void barrier_applied(struct raft_barrier *raft, int status)
{
    struct barrier *barrier = raft->data;
    struct replica *replica = barrier->replica;
    if (replica->leading_term == barrier->term) {
        replica->ready = status == 0;
        replica->barrier_asked = status == 0;
    }
    free(barrier);
    kick_arm(replica->kick);
}

/* libraft writes a barrier of its own only where older entries are not committed yet; ours says when it is applied. */
static void ask_barrier(struct replica *replica)
{
    struct barrier *barrier = mem_zalloc(sizeof *barrier);
    barrier->replica = replica;
    barrier->term = replica->leading_term;
    barrier->raft.data = barrier;
    if (raft_barrier(&replica->raft, &barrier->raft, barrier_applied) == 0)
        replica->barrier_asked = true;
    else
        free(barrier);
}

static void tell_leader(struct replica *replica, bool leader)
{
    if (replica->told_leader == leader)
        return;
    replica->told_leader = leader;
    if (replica->fsm.on_leader)
        replica->fsm.on_leader(replica->fsm.user, leader);
}

static void follow_leadership(struct replica *replica)
{
    raft_term term = replica_leads(replica) ? raft_current_term(&replica->raft) : 0;
    if (term != replica->leading_term) {
        replica->leading_term = term;
        replica->ready = replica->barrier_asked = false;
        replica->forgetful_count = 0;
        if (term != 0) {
            replica->elections++;
            log_event(LOG_INFO, "raft.leader_elected", "member=%s term=%llu", replica->name, term);
        } else {
            log_event(LOG_INFO, "raft.leadership_ended", "member=%s term=%llu", replica->name,
                raft_current_term(&replica->raft));
        }
        tell_leader(replica, false);
    }
    if (term != 0 && !replica->barrier_asked)
        ask_barrier(replica);
    tell_leader(replica, replica->ready);
}

/* ---- members ---- */

static void follow_configuration(struct replica *replica)
{
    const struct raft *raft = &replica->raft;
    struct replica_member members[MEMBERS_MAX];
    int role = raft_role(&replica->raft);
    if (raft->configuration_committed_index == replica->known_committed &&
        raft->configuration_uncommitted_index == replica->known_uncommitted &&
        raft->configuration.n == replica->known_members)
        return;
    if (role == -1 && replica->known_role != -1)
        log_event(LOG_WARN, "raft.member_removed", "member=%s: it takes no part any more", replica->name);
    replica->known_role = role;
    replica->known_committed = raft->configuration_committed_index;
    replica->known_uncommitted = raft->configuration_uncommitted_index;
    replica->known_members = raft->configuration.n;
    transport_set_members(replica->transport, members, replica_members(replica, members, MEMBERS_MAX));
}

/* ---- entries and reads ---- */

static void applied(struct raft_apply *apply, int status, void *result)
{
    struct request *request = apply->data;
    struct replica *replica = request->replica;
    struct err err;
    (void)result;
    request_remove(&replica->in_raft, request);
    if (status == 0) {
        request_end(replica, request, NULL);
        return;
    }
    replica_raft_error(replica, status, "replicating an entry", &err);
    request_end(replica, request, &err);
}

/* Gives libraft what waits, as long as there is room. */
static void submit_waiting(struct replica *replica)
{
    struct err err;
    while (replica->waiting.first && replica->in_raft.count < REPLICA_INFLIGHT_ENTRIES &&
           replica->in_raft.bytes < REPLICA_INFLIGHT_BYTES) {
        struct request *request = request_pop(&replica->waiting);
        request->apply.data = request;
        int status = raft_apply(&replica->raft, &request->apply, &request->entry, 1, applied);
        if (status != 0) {
            replica_raft_error(replica, status, "replicating an entry", &err);
            request_end(replica, request, &err);
            continue;
        }
        request->entry = (struct raft_buffer){0}; /* libraft has it */
        request_push(&replica->in_raft, request);
    }
}

static void step_reads(struct replica *replica)
{
    const struct raft_configuration *configuration = &replica->raft.configuration;
    if (readindex_idle(replica->reads))
        return;
    struct readindex_view view = {.term = replica->ready ? replica->leading_term : 0,
        .commit = raft_commit_index(&replica->raft),
        .applied = raft_last_applied(&replica->raft),
        .self = replica->raft.id,
        .now_ms = uv_now(replica->loop)};
    for (unsigned i = 0; i < configuration->n && view.voter_count < MEMBERS_MAX; i++)
        if (configuration->servers[i].role == RAFT_VOTER)
            view.voters[view.voter_count++] = configuration->servers[i].id;
    readindex_step(replica->reads, &view);
}

/* What has not been given to libraft ends: none of it will ever be applied. */
static void refuse_waiting(struct replica *replica, const struct err *err)
{
    struct request *request;
    while ((request = request_pop(&replica->waiting)))
        request_end(replica, request, err);
    readindex_fail(replica->reads, err);
}

static void work(struct replica *replica)
{
    struct err err;
    follow_configuration(replica);
    follow_leadership(replica);
    if (replica->leading_term == 0) {
        replica_not_leader(replica, &err);
        refuse_waiting(replica, &err);
    } else if (replica->ready) {
        submit_waiting(replica);
        step_reads(replica);
    }
    membership_step(replica);
    transport_poll(replica->transport);
}

/* Answers the callers; a callback may make new calls, even replica_close(). */
static void answer_callers(struct replica *replica)
{
    struct request *request;
    while ((request = request_pop(&replica->done))) {
        if (request->failed)
            request->fn(request->user, &request->err, NULL, 0);
        else
            request->fn(request->user, NULL, request->result.data, request->result.len);
        buf_free(&request->result);
        free(request);
    }
}

/* ---- closing ---- */

static void raft_closed(struct raft *raft)
{
    struct replica *replica = raft->data;
    replica_move(replica, STATE_CLOSED);
    kick_arm(replica->kick);
}

/* A disk that does not answer is not waited for at the end: what was acknowledged is on it. */
void replica_close_stalled(void *user)
{
    struct replica *replica = user;
    log_event(LOG_ERROR, "raft.close_stalled", "member=%s", replica->name);
    _exit(err_exit_status(ERR_INTERNAL));
}

static void close_raft(struct replica *replica)
{
    replica_move(replica, STATE_CLOSING);
    loop_timer_start(replica->bound, CLOSE_BOUND_MS, 0);
    raft_close(&replica->raft, raft_closed);
}

static void drain(struct replica *replica)
{
    struct err err;
    err_set(&err, ERR_CANCELLED, "this member is closing");
    refuse_waiting(replica, &err);
    membership_fail(replica, &err);
    transport_mute(replica->transport);
    replica->until_ms = uv_now(replica->loop) + CLOSE_BOUND_MS;
    replica_move(replica, STATE_DRAINING);
    kick_arm(replica->kick);
}

static void transferred(struct raft_transfer *transfer)
{
    struct replica *replica = transfer->data;
    replica->transferred = true;
    kick_arm(replica->kick);
}

/* The reachable voter whose log is the longest. */
static raft_id choose_successor(struct replica *replica)
{
    const struct raft_configuration *configuration = &replica->raft.configuration;
    raft_id best = 0;
    raft_index best_match = 0, match;
    for (unsigned i = 0; i < configuration->n; i++) {
        const struct raft_server *server = &configuration->servers[i];
        if (server->role != RAFT_VOTER || server->id == replica->raft.id ||
            !transport_reaches(replica->transport, server->id) ||
            raft_match_index(&replica->raft, server->id, &match) != 0 || match < best_match)
            continue;
        best = server->id;
        best_match = match;
    }
    return best;
}

static void begin_close(struct replica *replica)
{
    raft_id successor = replica_leads(replica) ? choose_successor(replica) : 0;
    replica->close_wanted = false;
    tell_leader(replica, false);
    replica->transfer.data = replica;
    if (successor == 0 || raft_transfer(&replica->raft, &replica->transfer, successor, transferred) != 0) {
        drain(replica);
        return;
    }
    /* libraft gives up after one election timeout, unless it is cut off meanwhile. */
    replica->until_ms = uv_now(replica->loop) + 2ull * replica->election_ms;
    replica_move(replica, STATE_HANDING_OVER);
}

static void free_replica(struct replica *replica)
{
    void (*closed)(void *) = replica->closed;
    void *user = replica->closed_user;
    transport_free(replica->transport);
    disk_free(replica->disk);
    readindex_free(replica->reads);
    kick_free(replica->kick);
    loop_timer_free(replica->bound);
    close(replica->lock_fd);
    free(replica);
    if (closed)
        closed(user);
}

void replica_turn(void *user)
{
    struct replica *replica = user;
    switch (replica->state) {
    case STATE_OPENING:
        break;
    case STATE_OPEN:
        work(replica);
        break;
    case STATE_HANDING_OVER:
        transport_poll(replica->transport);
        if (replica->transferred || uv_now(replica->loop) >= replica->until_ms)
            drain(replica);
        break;
    case STATE_DRAINING:
        if (disk_idle(replica->disk) || uv_now(replica->loop) >= replica->until_ms)
            close_raft(replica);
        break;
    case STATE_CLOSING:
    case STATE_CLOSED:
        break;
    }
    answer_callers(replica);
    if (replica->state == STATE_OPEN && replica->close_wanted)
        begin_close(replica);
    if (replica->state == STATE_CLOSED && !replica->done.first)
        free_replica(replica);
}
