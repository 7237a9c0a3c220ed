#include "raft/replica.h"

#include <stdio.h>
#include <string.h>

#include "base/ensure.h"
#include "raft/entry.h"
#include "raft/internal.h"

/* ---- state ---- */

static const char *const state_names[] = {
    [STATE_OPENING] = "opening",
    [STATE_OPEN] = "open",
    [STATE_HANDING_OVER] = "handing-over",
    [STATE_DRAINING] = "draining",
    [STATE_CLOSING] = "closing",
    [STATE_CLOSED] = "closed",
};

#define MAY(state) (1u << (state))
static const unsigned state_successors[] = {
    [STATE_OPENING] = MAY(STATE_OPEN) | MAY(STATE_CLOSING),
    [STATE_OPEN] = MAY(STATE_HANDING_OVER) | MAY(STATE_DRAINING),
    [STATE_HANDING_OVER] = MAY(STATE_DRAINING),
    [STATE_DRAINING] = MAY(STATE_CLOSING),
    [STATE_CLOSING] = MAY(STATE_CLOSED),
    [STATE_CLOSED] = 0,
};

void replica_move(struct replica *replica, enum replica_state to)
{
    ENSURE(state_successors[replica->state] & MAY(to));
    log_event(LOG_DEBUG, "raft.replica_moved", "member=%s from=%s to=%s", replica->name, state_names[replica->state],
        state_names[to]);
    replica->state = to;
}

bool replica_usable(const struct replica *replica)
{
    return replica->state >= STATE_OPEN && replica->state <= STATE_DRAINING;
}

bool replica_leads(const struct replica *replica)
{
    return replica_usable(replica) && raft_state((struct raft *)&replica->raft) == RAFT_LEADER;
}

/* Name of the leader this member follows or is, or "". `out` has WIRE_PRINCIPAL_MAX bytes. */
static void leader_name(const struct replica *replica, char *out)
{
    raft_id id = 0;
    const char *address = NULL;
    out[0] = '\0';
    if (!replica_usable(replica))
        return;
    raft_leader((struct raft *)&replica->raft, &id, &address);
    if (id == replica->raft.id)
        snprintf(out, WIRE_PRINCIPAL_MAX, "%s", replica->name);
    else if (id != 0 && address)
        member_name(address, out);
}

/* ---- errors ---- */

void replica_not_leader(const struct replica *replica, struct err *err)
{
    char name[WIRE_PRINCIPAL_MAX];
    leader_name(replica, name);
    if (name[0] && strcmp(name, replica->name) != 0)
        err_set(err, ERR_NOT_LEADER, "%s does not lead: ask %s", replica->name, name);
    else
        err_set(err, ERR_NOT_LEADER, "%s does not lead, and no leader is known", replica->name);
}

void replica_raft_error(const struct replica *replica, int status, const char *doing, struct err *err)
{
    switch (status) {
    case RAFT_NOTLEADER:
        replica_not_leader(replica, err);
        break;
    case RAFT_LEADERSHIPLOST:
    case RAFT_CANCELED:
    case RAFT_SHUTDOWN:
        if (replica->state >= STATE_DRAINING)
            err_set(err, ERR_CANCELLED, "%s: this member is closing", doing);
        else
            err_set(err, ERR_UNAVAILABLE, "%s: the leadership was lost, the outcome is not known", doing);
        break;
    case RAFT_CANTCHANGE:
    case RAFT_BUSY:
        err_set(err, ERR_BUSY, "%s: another change is under way", doing);
        break;
    case RAFT_NOCONNECTION:
        err_set(err, ERR_UNAVAILABLE, "%s: the member does not keep up", doing);
        break;
    case RAFT_DUPLICATEID:
    case RAFT_DUPLICATEADDRESS:
        err_set(err, ERR_INVALID, "%s: another member has that name or address", doing);
        break;
    case RAFT_NOTFOUND:
    case RAFT_BADID:
        err_set(err, ERR_NOT_FOUND, "%s: there is no such member", doing);
        break;
    default:
        err_set(err, ERR_INTERNAL, "%s: %s", doing, raft_strerror(status));
    }
}

/* ---- calls ---- */

static struct request *request_new(struct replica *replica, replica_done_fn fn, void *user)
{
    struct request *request = mem_zalloc(sizeof *request);
    ENSURE(fn);
    request->replica = replica;
    request->fn = fn;
    request->user = user;
    return request;
}

/* Whether calls are taken at all; if not, the request ends with the reason. */
static bool accepts(struct replica *replica, struct request *request)
{
    struct err err;
    if (replica->state != STATE_OPEN || replica->close_wanted)
        err_set(&err, ERR_CANCELLED, "this member is closing");
    else if (!replica_leads(replica))
        replica_not_leader(replica, &err);
    else
        return true;
    request_end(replica, request, &err);
    return false;
}

void replica_submit(struct replica *replica, const uint8_t *entry, size_t len, replica_done_fn fn, void *user)
{
    struct request *request = request_new(replica, fn, user);
    struct err err;
    if (!accepts(replica, request))
        return;
    if (len > REPLICA_ENTRY_MAX) {
        err_set(&err, ERR_INVALID, "an entry of %zu bytes is longer than %u", len, REPLICA_ENTRY_MAX);
        request_end(replica, request, &err);
    } else if (replica->waiting.count >= REPLICA_WAITING_ENTRIES || replica->waiting.bytes >= REPLICA_WAITING_BYTES) {
        err_set(&err, ERR_BUSY, "too many entries wait to be replicated");
        request_end(replica, request, &err);
    } else {
        request->entry = entry_wrap(entry, len);
        request->bytes = request->entry.len;
        request_push(&replica->waiting, request);
        kick_arm(replica->kick);
    }
}

void replica_read(struct replica *replica, replica_done_fn fn, void *user)
{
    struct request *request = request_new(replica, fn, user);
    if (!accepts(replica, request))
        return;
    readindex_add(replica->reads, request);
    kick_arm(replica->kick);
}

static void change_begin(
    struct replica *replica, enum change_step step, const struct replica_member *member, struct request *request)
{
    struct change *change = &replica->change;
    struct err err;
    if (change->step != CHANGE_NONE || change->in_raft) {
        err_set(&err, ERR_BUSY, "another change of the membership is under way");
        request_end(replica, request, &err);
        return;
    }
    change->step = step;
    change->request = request;
    change->member = *member;
    change->id = member_id(member->name);
    change->answered = false;
    kick_arm(replica->kick);
}

void replica_add(struct replica *replica, const struct replica_member *member, replica_done_fn fn, void *user)
{
    struct request *request = request_new(replica, fn, user);
    struct err err;
    if (!accepts(replica, request))
        return;
    if (member_check_all(member, 1, &err))
        request_end(replica, request, &err);
    else
        change_begin(replica, CHANGE_ADD, member, request);
}

void replica_remove(struct replica *replica, const char *name, replica_done_fn fn, void *user)
{
    struct request *request = request_new(replica, fn, user);
    struct replica_member member = {0};
    if (!accepts(replica, request))
        return;
    snprintf(member.name, sizeof member.name, "%s", name);
    change_begin(replica, CHANGE_REMOVE, &member, request);
}

void replica_withdraw(struct replica *replica, const struct replica_member *member, replica_done_fn fn, void *user)
{
    struct request *request = request_new(replica, fn, user);
    if (!accepts(replica, request))
        return;
    change_begin(replica, CHANGE_REMOVE, member, request);
}

void replica_status(const struct replica *replica, struct replica_status *out)
{
    struct raft *raft = (struct raft *)&replica->raft;
    *out = (struct replica_status){.snapshots_taken = replica->snapshots_taken, .elections = replica->elections};
    if (!replica_usable(replica))
        return;
    out->leader = replica->state == STATE_OPEN && replica->ready && replica_leads(replica) &&
                  raft_current_term(raft) == replica->leading_term;
    out->term = raft_current_term(raft);
    out->commit_index = raft_commit_index(raft);
    out->applied_index = raft_last_applied(raft);
    out->last_index = raft_last_index(raft);
    leader_name(replica, out->leader_name);
}

size_t replica_members(const struct replica *replica, struct replica_member *out, size_t max)
{
    const struct raft_configuration *configuration = &replica->raft.configuration;
    struct err err;
    size_t n = 0;
    if (!replica_usable(replica) && replica->state != STATE_OPENING)
        return 0;
    for (unsigned i = 0; i < configuration->n; i++) {
        struct replica_member member = {.role = member_role_from_raft(configuration->servers[i].role)};
        if (member_parse(configuration->servers[i].address, &err, &member))
            continue; /* checked before it came into the log */
        if (n < max)
            out[n] = member;
        n++;
    }
    return n;
}

void replica_close(struct replica *replica, void (*closed)(void *user), void *user)
{
    ENSURE(!replica->closed);
    replica->closed = closed;
    replica->closed_user = user;
    replica->close_wanted = true;
    kick_arm(replica->kick);
}
