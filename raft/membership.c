/* Adding and removing members, one change at a time:
 *
 *   add:    ADD ------> STANDBY ----------> CATCH_UP -----------> PROMOTE ---> done
 *           (spare)     (gets the log)      (all but the last      (votes)
 *                                            few entries)
 *   remove: REMOVE ---> MARK ---------> HEARD ------------> LEAVE ---> done
 *           (may it?)   (an entry of    (enough voters of
 *                        our own)        the rest have it)
 *
 * libraft goes by a new configuration as soon as it is appended: a voter that leaves where the rest has no majority
 * that answers would take the quorum with it for good, as the entry that lets it go is never committed then, nor any
 * other. So the rest shows first that it can do without it. Members without a vote leave at once.
 *
 * A member that is there already with a lesser role enters where it stands, so that an add that was cut short (by a
 * change of the leader, or a member that did not come) is finished by asking again. */
#include <string.h>

#include "base/ensure.h"
#include "raft/internal.h"

/* libraft's own catching up has little patience (one election timeout a round), so that it gets a member that is close.
 */
#define CATCH_UP_CLOSE 64u
/* A member that does not move for this long is not coming. */
#define CATCH_UP_STALL_MS 30000u
/* Voters have this many election timeouts to take an entry before one of them leaves. */
#define HEARD_ELECTIONS 2u

static void change_end(struct replica *replica, const struct err *err)
{
    struct change *change = &replica->change;
    struct request *request = change->request;
    change->step = CHANGE_NONE;
    change->request = NULL;
    if (request)
        request_end(replica, request, err);
}

void membership_fail(struct replica *replica, const struct err *err)
{
    if (replica->change.step != CHANGE_NONE)
        change_end(replica, err);
}

static void answered(struct replica *replica, int status)
{
    replica->change.in_raft = false;
    replica->change.answered = true;
    replica->change.status = status;
    kick_arm(replica->kick);
}

static void changed(struct raft_change *raft, int status)
{
    answered(raft->data, status);
}

static void marked(struct raft_barrier *raft, int status)
{
    answered(raft->data, status);
}

static const struct raft_server *find_server(const struct replica *replica, raft_id id)
{
    const struct raft_configuration *configuration = &replica->raft.configuration;
    for (unsigned i = 0; i < configuration->n; i++)
        if (configuration->servers[i].id == id)
            return &configuration->servers[i];
    return NULL;
}

/* Asks libraft for what the step needs. */
static int ask_raft(struct replica *replica)
{
    struct change *change = &replica->change;
    struct raft *raft = &replica->raft;
    char text[MEMBER_TEXT_MAX];
    struct err err;
    memset(&change->raft, 0, sizeof change->raft);
    memset(&change->mark, 0, sizeof change->mark);
    change->raft.data = change->mark.data = replica;
    switch (change->step) {
    case CHANGE_ADD:
        ENSURE(member_format(&change->member, &err, text) == 0); /* checked when it was asked for */
        return raft_add(raft, &change->raft, change->id, text, changed);
    case CHANGE_STANDBY:
        return raft_assign(raft, &change->raft, change->id, RAFT_STANDBY, changed);
    case CHANGE_PROMOTE:
        return raft_assign(raft, &change->raft, change->id, RAFT_VOTER, changed);
    case CHANGE_MARK:
        return raft_barrier(raft, &change->mark, marked);
    case CHANGE_LEAVE:
        return raft_remove(raft, &change->raft, change->id, changed);
    case CHANGE_NONE:
    case CHANGE_CATCH_UP:
    case CHANGE_REMOVE:
    case CHANGE_HEARD:
        break;
    }
    ENSURE(!"a step that libraft takes part in");
    return RAFT_INVALID;
}

static void enter(struct replica *replica, enum change_step step)
{
    struct change *change = &replica->change;
    struct err err;
    change->step = step;
    change->answered = false;
    log_event(LOG_INFO, "raft.membership_changing", "member=%s step=%d", change->member.name, (int)step);
    if (step == CHANGE_CATCH_UP || step == CHANGE_HEARD) {
        change->seen = 0;
        change->seen_ms = uv_now(replica->loop);
        return;
    }
    change->in_raft = true;
    int status = ask_raft(replica);
    if (step == CHANGE_MARK)
        change->marked = raft_last_index(&replica->raft);
    if (status == 0)
        return;
    change->in_raft = false;
    replica_raft_error(replica, status, "changing the membership", &err);
    change_end(replica, &err);
}

/* Where an add begins, for a member the configuration has already. */
static void enter_existing(struct replica *replica, const struct raft_server *server)
{
    struct change *change = &replica->change;
    enum replica_role role = member_role_from_raft(server->role);
    char text[MEMBER_TEXT_MAX];
    struct err err;
    ENSURE(member_format(&change->member, &err, text) == 0);
    if (strcmp(text, server->address) != 0) {
        err_set(&err, ERR_INVALID, "the member %s is there with another address or key: remove it first",
            change->member.name);
        change_end(replica, &err);
    } else if (role >= change->member.role) {
        err_set(&err, ERR_EXISTS, "the member %s is there already", change->member.name);
        change_end(replica, &err);
    } else {
        enter(replica, role == REPLICA_SPARE ? CHANGE_STANDBY : CHANGE_CATCH_UP);
    }
}

/* The member that has the address of the one to be added; false: none. Such a one would never come. */
static bool address_in_use(const struct replica *replica, char holder[static WIRE_PRINCIPAL_MAX])
{
    const struct raft_configuration *configuration = &replica->raft.configuration;
    struct replica_member member = {0};
    struct err err;
    for (unsigned i = 0; i < configuration->n; i++)
        if (member_parse(configuration->servers[i].address, &err, &member) == 0 &&
            member_same_address(member.address, replica->change.member.address)) {
            strcpy(holder, member.name);
            return true;
        }
    return false;
}

static void begin_add(struct replica *replica)
{
    const struct raft_server *server = find_server(replica, replica->change.id);
    char name[WIRE_PRINCIPAL_MAX];
    struct err err;
    if (server) {
        member_name(server->address, name);
        if (strcmp(name, replica->change.member.name) == 0) {
            enter_existing(replica, server);
            return;
        }
        err_set(&err, ERR_INVALID, "the names %s and %s have the same raft id: choose another name", name,
            replica->change.member.name);
        change_end(replica, &err);
    } else if (replica->raft.configuration.n >= MEMBERS_MAX) {
        err_set(&err, ERR_CAPACITY, "a cluster has at most %d members", MEMBERS_MAX);
        change_end(replica, &err);
    } else if (address_in_use(replica, name)) {
        err_set(&err, ERR_INVALID, "the address %s is that of the member %s: give %s one of its own",
            replica->change.member.address, name, replica->change.member.name);
        change_end(replica, &err);
    } else {
        enter(replica, CHANGE_ADD);
    }
}

/* Whether the one that has the id is the one to be removed: of that name, and where an address was given (to take an
 * add back), with that address and key. */
static bool is_meant(const struct replica_member *wanted, const struct raft_server *server)
{
    char text[MEMBER_TEXT_MAX], name[WIRE_PRINCIPAL_MAX];
    struct err err;
    if (wanted->address[0] != '\0')
        return member_format(wanted, &err, text) == 0 && strcmp(text, server->address) == 0;
    member_name(server->address, name);
    return strcmp(name, wanted->name) == 0;
}

static void begin_remove(struct replica *replica)
{
    const struct raft_configuration *configuration = &replica->raft.configuration;
    const struct raft_server *server = find_server(replica, replica->change.id);
    size_t voters = 0;
    struct err err;
    for (unsigned i = 0; i < configuration->n; i++)
        voters += configuration->servers[i].role == RAFT_VOTER;
    if (!server) {
        err_set(&err, ERR_NOT_FOUND, "there is no member %s", replica->change.member.name);
        change_end(replica, &err);
    } else if (!is_meant(&replica->change.member, server)) {
        err_set(
            &err, ERR_NOT_FOUND, "the member that has the raft id of %s is another one", replica->change.member.name);
        change_end(replica, &err);
    } else if (server->role == RAFT_VOTER && voters == 1) {
        err_set(&err, ERR_WRONG_STATE, "the member %s is the only voter", replica->change.member.name);
        change_end(replica, &err);
    } else {
        enter(replica, server->role == RAFT_VOTER ? CHANGE_MARK : CHANGE_LEAVE);
    }
}

/* Whether a majority of the voters that would remain has the mark; `silent` names the others. */
static bool rest_keeps_up(const struct replica *replica, char *silent, size_t size)
{
    const struct raft_configuration *configuration = &replica->raft.configuration;
    unsigned voters = 0, having = 0;
    size_t len = 0;
    silent[0] = '\0';
    for (unsigned i = 0; i < configuration->n; i++) {
        const struct raft_server *server = &configuration->servers[i];
        char name[WIRE_PRINCIPAL_MAX];
        raft_index match = 0;
        if (server->role != RAFT_VOTER || server->id == replica->change.id)
            continue;
        voters++;
        if (raft_match_index(&replica->raft, server->id, &match) == 0 && match >= replica->change.marked) {
            having++;
            continue;
        }
        member_name(server->address, name);
        int written = snprintf(silent + len, size - len, "%s%s", len ? ", " : "", name);
        if (written > 0 && (size_t)written < size - len)
            len += (size_t)written;
    }
    return having > voters / 2;
}

static void step_heard(struct replica *replica)
{
    struct change *change = &replica->change;
    char silent[256];
    struct err err;
    if (rest_keeps_up(replica, silent, sizeof silent)) {
        enter(replica, CHANGE_LEAVE);
    } else if (uv_now(replica->loop) - change->seen_ms > (uint64_t)HEARD_ELECTIONS * replica->election_ms) {
        err_set(&err, ERR_WRONG_STATE,
            "without the member %s no majority would be left, as these do not answer: %s; remove those first, or start "
            "them again",
            change->member.name, silent);
        change_end(replica, &err);
    }
}

static void step_catch_up(struct replica *replica)
{
    struct change *change = &replica->change;
    uint64_t now_ms = uv_now(replica->loop);
    raft_index match = 0;
    struct err err;
    if (raft_match_index(&replica->raft, change->id, &match) != 0)
        match = 0;
    if (match > 0 && match + CATCH_UP_CLOSE >= raft_last_index(&replica->raft)) {
        enter(replica, CHANGE_PROMOTE);
    } else if (match != change->seen) {
        change->seen = match;
        change->seen_ms = now_ms;
    } else if (now_ms - change->seen_ms > CATCH_UP_STALL_MS) {
        err_set(&err, ERR_TIMEOUT, "the member %s does not catch up; it stays a standby: ask again once it runs",
            change->member.name);
        change_end(replica, &err);
    }
}

/* The step is taken: what is next? */
static void step_done(struct replica *replica)
{
    struct change *change = &replica->change;
    if (change->step == CHANGE_ADD && change->member.role != REPLICA_SPARE)
        enter(replica, CHANGE_STANDBY);
    else if (change->step == CHANGE_STANDBY && change->member.role != REPLICA_STANDBY)
        enter(replica, CHANGE_CATCH_UP);
    else if (change->step == CHANGE_MARK)
        enter(replica, CHANGE_HEARD);
    else
        change_end(replica, NULL);
}

void membership_step(struct replica *replica)
{
    struct change *change = &replica->change;
    struct err err;
    if (change->step == CHANGE_NONE || change->in_raft)
        return; /* libraft answers, also when the leadership is lost: a leader that removes itself loses it and succeeds
                 */
    if (change->answered && change->status != 0) {
        replica_raft_error(replica, change->status, "changing the membership", &err);
        change_end(replica, &err);
    } else if (change->answered) {
        step_done(replica);
    } else if (replica->leading_term == 0) {
        replica_not_leader(replica, &err);
        change_end(replica, &err);
    } else if (!replica->ready) {
        return;
    } else if (change->step == CHANGE_CATCH_UP) {
        step_catch_up(replica);
    } else if (change->step == CHANGE_HEARD) {
        step_heard(replica);
    } else if (change->step == CHANGE_ADD) {
        begin_add(replica);
    } else {
        begin_remove(replica);
    }
}
