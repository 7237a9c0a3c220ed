/* What comes in from other members, on its way to libraft or past it: the last checks, and the questions of the read
 * index. */
#include <unistd.h>

#include "base/log.h"
#include "proto/bounded.h"
#include "proto/raft.pb-c.h"
#include "raft/internal.h"

raft_term replica_leading(void *user)
{
    struct replica *replica = user;
    return replica_leads(replica) ? raft_current_term(&replica->raft) : 0;
}

/* libraft 0.22.1 crashes on a snapshot that comes while it takes one (takeSnapshotCb() uses what it has just cleared).
 */
bool replica_may_install(void *user)
{
    struct replica *replica = user;
    return !replica->raft.legacy.snapshot_taking && !replica->raft.snapshot.installing;
}

/* A message that was sent again may end before what is committed here. libraft 0.22.1 would then set its commit index
 * back (replicationAppend()), take its next snapshot under that index with a state that is further, and after a restart
 * apply the difference twice. Such a message has nothing to say about what is committed. */
static void keep_commit_index(const struct replica *replica, struct raft_message *message)
{
    struct raft_append_entries *args = &message->append_entries;
    raft_index commit = raft_commit_index(&replica->raft);
    if (message->type == RAFT_APPEND_ENTRIES && args->leader_commit > commit &&
        args->prev_log_index + args->n_entries < commit)
        args->leader_commit = commit;
}

/* ---- a member that has lost its log ---- */

/* As long as a member must refuse what it has acknowledged for it to have lost its log: a message that was overtaken is
 * followed by better ones. */
#define FORGETFUL_ELECTIONS 10u

/* Where the list has the member, forgetful_count if it has not. */
static size_t forgetful_find(const struct replica *replica, raft_id id)
{
    size_t i = 0;
    while (i < replica->forgetful_count && replica->forgetful[i].id != id)
        i++;
    return i;
}

static void forgetful_remove(struct replica *replica, raft_id id)
{
    size_t i = forgetful_find(replica, id);
    if (i < replica->forgetful_count)
        replica->forgetful[i] = replica->forgetful[--replica->forgetful_count];
}

static bool has_forgotten(const struct replica *replica, const struct forgetful *member)
{
    return uv_now(replica->loop) - member->since_ms > FORGETFUL_ELECTIONS * replica->election_ms;
}

/* The member refused what it has acknowledged. Time alone does not tell that it has lost its log, as it may be away: it
 * takes another refusal then. */
static void forgetful_add(struct replica *replica, raft_id id, const char *name)
{
    size_t i = forgetful_find(replica, id);
    if (i == MEMBERS_MAX)
        return;
    struct forgetful *member = &replica->forgetful[i];
    if (i == replica->forgetful_count) {
        *member = (struct forgetful){.id = id, .since_ms = uv_now(replica->loop)};
        replica->forgetful_count++;
    }
    if (member->told || !has_forgotten(replica, member))
        return;
    member->told = true;
    log_event(LOG_ERROR, "raft.member_lost_its_log",
        "member=%s: it gets no entries; remove it, empty its directory, and add it again", name);
}

bool replica_lost_its_log(const struct replica *replica, const char *name)
{
    size_t i = forgetful_find(replica, member_id(name));
    return replica_leads(replica) && i < replica->forgetful_count && replica->forgetful[i].told;
}

/* A refusal of what the member has acknowledged in this very term is an old one that was overtaken, or comes of a log
 * that was lost. libraft 0.22.1 would set the member's next index below what it is known to have
 * (progressMaybeDecrement()), take the difference for entries under way, negative and therefore more than any limit,
 * and never send it an entry again. */
static void drop_old_refusal(struct replica *replica, const char *from, struct raft_message *message)
{
    struct raft_append_entries_result *result = &message->append_entries_result;
    raft_index match;
    if (message->type != RAFT_APPEND_ENTRIES_RESULT || !replica_leads(replica) ||
        result->term != raft_current_term(&replica->raft) ||
        raft_match_index(&replica->raft, message->server_id, &match) != 0)
        return;
    if (result->rejected == 0) {
        forgetful_remove(replica, message->server_id);
    } else if (result->rejected <= match) {
        forgetful_add(replica, message->server_id, from);
        result->rejected = result->last_log_index = 0; /* says no more than "alive" */
    } else if (result->last_log_index < match) {
        result->last_log_index = match;
    }
}

/* ---- a leader that has another history ---- */

/* The term of an entry of this member's log, 0 if that is not known any more, or not yet. */
static raft_term term_of(const struct raft_trail *trail, raft_index index)
{
    raft_term term = 0;
    /* Each record is of one term, and has the last index of that. The newest first. */
    for (unsigned at = trail->back; at != trail->front && index > trail->offset;) {
        at = (at + trail->size - 1) % trail->size;
        if (trail->records[at].index < index)
            break;
        term = trail->records[at].term;
    }
    return term == 0 && index == trail->snapshot.index ? trail->snapshot.term : term;
}

/* The leader has, or sends, another entry where one is committed here; `out` is its index. */
static bool contradicts(const struct replica *replica, const struct raft_append_entries *args, raft_index *out)
{
    const struct raft_trail *trail = &replica->raft.trail;
    raft_index commit = raft_commit_index(&replica->raft), index = args->prev_log_index;
    raft_term own = index > 0 && index <= commit ? term_of(trail, index) : 0, theirs = args->prev_log_term;
    for (unsigned i = 0; own == 0 || own == theirs; i++) {
        index = args->prev_log_index + 1 + i;
        if (i == args->n_entries || index > commit)
            return false;
        own = term_of(trail, index);
        theirs = args->entries[i].term;
    }
    *out = index;
    return true;
}

/* libraft 0.22.1 leaves such a message without an answer (replicationAppend()), whereupon the leader asks again, for
 * ever; and it frees the entries in it twice (recvAppendEntries(), recvCb()). */
static void check_history(const struct replica *replica, const char *from, const struct raft_message *message)
{
    raft_index index;
    if (message->type != RAFT_APPEND_ENTRIES || message->append_entries.term < raft_current_term(&replica->raft) ||
        !contradicts(replica, &message->append_entries, &index))
        return;
    log_event(LOG_ERROR, "raft.history_differs",
        "member=%s leader=%s index=%llu: the leader has another entry where one is committed here; find out which of "
        "them was founded anew or restored from a copy, remove that one, empty its directory, and add it again",
        replica->name, from, index);
    _exit(err_exit_status(ERR_CORRUPT));
}

/* ---- all messages ---- */

/* libraft takes for granted that one term has one leader. If another member claims the term this one leads, a key or a
 * data directory has been copied; libraft would write over its own memory. */
bool replica_admit(void *user, const char *from, struct raft_message *message)
{
    struct replica *replica = user;
    raft_term term = 0;
    keep_commit_index(replica, message);
    drop_old_refusal(replica, from, message);
    if (message->type == RAFT_APPEND_ENTRIES)
        term = message->append_entries.term;
    else if (message->type == RAFT_INSTALL_SNAPSHOT)
        term = message->install_snapshot.term;
    if (term == 0 || term != replica_leading(replica)) {
        check_history(replica, from, message);
        return true;
    }
    log_event(LOG_ERROR, "raft.second_leader", "term=%llu claimed_by=%s: is a key or a data directory in use twice?",
        term, from);
    return false;
}

void replica_ask_voter(void *user, raft_id voter, uint64_t round, raft_term term)
{
    struct replica *replica = user;
    Drover__RaftPing ping = DROVER__RAFT_PING__INIT;
    ping.round = round;
    ping.term = term;
    /* A lost question is asked again. */
    (void)transport_note(replica->transport, voter, DROVER__RAFT_METHOD__RAFT_METHOD_PING, &ping.base);
}

static void answer_ping(struct replica *replica, raft_id from, const uint8_t *body, size_t len)
{
    Drover__RaftPing *ping = BOUNDED_UNPACK(raft_ping, body, len);
    if (!ping || !replica_usable(replica)) {
        drover__raft_ping__free_unpacked(ping, NULL);
        return;
    }
    Drover__RaftPong pong = DROVER__RAFT_PONG__INIT;
    pong.round = ping->round;
    pong.term = raft_current_term(&replica->raft);
    drover__raft_ping__free_unpacked(ping, NULL);
    (void)transport_note(replica->transport, from, DROVER__RAFT_METHOD__RAFT_METHOD_PONG, &pong.base);
}

static void take_pong(struct replica *replica, raft_id from, const uint8_t *body, size_t len)
{
    Drover__RaftPong *pong = BOUNDED_UNPACK(raft_pong, body, len);
    if (!pong)
        return;
    readindex_answer(replica->reads, from, pong->round, pong->term);
    drover__raft_pong__free_unpacked(pong, NULL);
    kick_arm(replica->kick);
}

void replica_take_message(void *user, raft_id from, uint32_t method, const uint8_t *body, size_t len)
{
    if (method == DROVER__RAFT_METHOD__RAFT_METHOD_PING)
        answer_ping(user, from, body, len);
    else if (method == DROVER__RAFT_METHOD__RAFT_METHOD_PONG)
        take_pong(user, from, body, len);
}
