/* What comes in from other members, on its way to libraft or past it: the last checks, and the questions of the read
 * index. */
#include "base/log.h"
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

/* A refusal of what the member has acknowledged in this very term is an old one that was overtaken. libraft 0.22.1
 * would set the member's next index below what it is known to have (progressMaybeDecrement()), take the difference for
 * entries under way, negative and therefore more than any limit, and never send it an entry again. */
static void drop_old_refusal(const struct replica *replica, struct raft_message *message)
{
    struct raft_append_entries_result *result = &message->append_entries_result;
    raft_index match;
    if (message->type != RAFT_APPEND_ENTRIES_RESULT || result->rejected == 0 || !replica_leads(replica) ||
        result->term != raft_current_term(&replica->raft) ||
        raft_match_index(&replica->raft, message->server_id, &match) != 0)
        return;
    if (result->rejected <= match)
        result->rejected = result->last_log_index = 0; /* says no more than "alive" */
    else if (result->last_log_index < match)
        result->last_log_index = match;
}

/* libraft takes for granted that one term has one leader. If another member claims the term this one leads, a key or a
 * data directory has been copied; libraft would write over its own memory. */
bool replica_admit(void *user, const char *from, struct raft_message *message)
{
    struct replica *replica = user;
    raft_term term = 0;
    keep_commit_index(replica, message);
    drop_old_refusal(replica, message);
    if (message->type == RAFT_APPEND_ENTRIES)
        term = message->append_entries.term;
    else if (message->type == RAFT_INSTALL_SNAPSHOT)
        term = message->install_snapshot.term;
    if (term == 0 || term != replica_leading(replica))
        return true;
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
    Drover__RaftPing *ping = drover__raft_ping__unpack(NULL, len, body);
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
    Drover__RaftPong *pong = drover__raft_pong__unpack(NULL, len, body);
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
