#include "raft/replica.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "base/file.h"
#include "proto/raft.pb-c.h"
#include "raft/entry.h"
#include "raft/internal.h"

#define DEFAULT_ELECTION_MS  500u
#define DEFAULT_HEARTBEAT_MS 50u
#define DEFAULT_SNAPSHOT     8192u

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

static bool raft_usable(const struct replica *replica)
{
    return replica->state >= STATE_OPEN && replica->state <= STATE_DRAINING;
}

bool replica_leads(const struct replica *replica)
{
    return raft_usable(replica) && raft_state((struct raft *)&replica->raft) == RAFT_LEADER;
}

/* Name of the leader this member follows or is, or "". `out` has WIRE_PRINCIPAL_MAX bytes. */
static void leader_name(const struct replica *replica, char *out)
{
    raft_id id = 0;
    const char *address = NULL;
    out[0] = '\0';
    if (!raft_usable(replica))
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
        err_set(err, ERR_EXISTS, "%s: another member has that name or address", doing);
        break;
    case RAFT_NOTFOUND:
    case RAFT_BADID:
        err_set(err, ERR_NOT_FOUND, "%s: there is no such member", doing);
        break;
    default:
        err_set(err, ERR_INTERNAL, "%s: %s", doing, raft_strerror(status));
    }
}

/* ---- what the transport and the reads ask ---- */

static raft_term leading(void *user)
{
    struct replica *replica = user;
    return replica_leads(replica) ? raft_current_term(&replica->raft) : 0;
}

/* libraft 0.22.1 crashes on a snapshot that comes while it takes one (takeSnapshotCb() uses what it has just cleared).
 */
static bool may_install(void *user)
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

/* libraft takes for granted that one term has one leader. If another member claims the term this one leads, a key or a
 * data directory has been copied; libraft would write over its own memory. */
static bool admit(void *user, const char *from, struct raft_message *message)
{
    struct replica *replica = user;
    raft_term term = 0;
    keep_commit_index(replica, message);
    if (message->type == RAFT_APPEND_ENTRIES)
        term = message->append_entries.term;
    else if (message->type == RAFT_INSTALL_SNAPSHOT)
        term = message->install_snapshot.term;
    if (term == 0 || term != leading(replica))
        return true;
    log_event(LOG_ERROR, "raft.second_leader", "term=%llu claimed_by=%s: is a key or a data directory in use twice?",
        term, from);
    return false;
}

static void ask_voter(void *user, raft_id voter, uint64_t round, raft_term term)
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
    if (!ping || !raft_usable(replica)) {
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

static void other_message(void *user, raft_id from, uint32_t method, const uint8_t *body, size_t len)
{
    if (method == DROVER__RAFT_METHOD__RAFT_METHOD_PING)
        answer_ping(user, from, body, len);
    else if (method == DROVER__RAFT_METHOD__RAFT_METHOD_PONG)
        take_pong(user, from, body, len);
}

static void read_done(void *user, void *read, const struct err *err)
{
    request_end(user, read, err);
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

void replica_status(const struct replica *replica, struct replica_status *out)
{
    struct raft *raft = (struct raft *)&replica->raft;
    *out = (struct replica_status){.snapshots_taken = replica->snapshots_taken, .elections = replica->elections};
    if (!raft_usable(replica))
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
    if (!raft_usable(replica) && replica->state != STATE_OPENING)
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

/* ---- life ---- */

/* libraft has taken a step: this is inside of it. */
static void raft_stepped(struct raft *raft)
{
    struct replica *replica = raft->data;
    kick_arm(replica->kick);
}

static int check_options(const struct replica_options *options, const struct replica_member *members, size_t count,
    bool join, struct err *err)
{
    size_t i = 0;
    if (!options->name || !options->name[0] || strlen(options->name) >= WIRE_PRINCIPAL_MAX)
        return err_set(err, ERR_INVALID, "a member's name must have 1 to %d characters", WIRE_PRINCIPAL_MAX - 1);
    if (count > 0 && member_check_all(members, count, err))
        return -1;
    while (i < count && strcmp(members[i].name, options->name) != 0)
        i++;
    if (!join && i == count)
        return err_set(err, ERR_INVALID, "the list of members does not have %s itself", options->name);
    return 0;
}

static int open_directory(struct replica *replica, const char *path, struct err *err)
{
    cleanup_fd int fd = -1;
    if (file_make_dirs(path, 0700, err))
        return -1;
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_INTERNAL, errno, "the raft directory %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return err_errno(err, ERR_BUSY, errno, "the raft directory %s is in use by another process", path);
    replica->lock_fd = fd;
    fd = -1;
    return 0;
}

static int bootstrap(struct replica *replica, const struct replica_member *members, size_t count, struct err *err)
{
    struct raft_configuration configuration;
    char text[MEMBER_TEXT_MAX];
    raft_id last = 0;
    int status = 0;
    raft_configuration_init(&configuration);
    /* In the order of the ids, so that every member writes the same first entry, whatever the order of its list. */
    for (size_t done = 0; done < count && status == 0; done++) {
        const struct replica_member *next = NULL;
        for (size_t i = 0; i < count; i++)
            if (member_id(members[i].name) > last && (!next || member_id(members[i].name) < member_id(next->name)))
                next = &members[i];
        ENSURE(next && member_format(next, err, text) == 0); /* the list has been checked */
        last = member_id(next->name);
        status = raft_configuration_add(&configuration, last, text, member_role_to_raft(next->role));
    }
    if (status == 0)
        status = raft_bootstrap(&replica->raft, &configuration);
    raft_configuration_close(&configuration);
    if (status != 0 && status != RAFT_CANTBOOTSTRAP) /* it has data: a restart */
        return err_set(err, ERR_INTERNAL, "the first entry of the log: %s", raft_strerror(status));
    return 0;
}

static void set_up_raft(struct replica *replica, const struct replica_options *options)
{
    unsigned snapshot = options->snapshot_threshold ? options->snapshot_threshold : DEFAULT_SNAPSHOT;
    struct raft *raft = &replica->raft;
    raft->data = replica;
    raft->tracer = NULL; /* it would format a line for every step, to throw it away */
    raft->legacy.step_cb = raft_stepped;
    raft_set_election_timeout(raft, replica->election_ms);
    raft_set_heartbeat_timeout(raft, replica->heartbeat_ms);
    raft_set_snapshot_threshold(raft, snapshot);
    raft_set_snapshot_trailing(raft, snapshot);
    raft_set_max_inflight_entries(raft, REPLICA_INFLIGHT_ENTRIES);
    raft_set_pre_vote(raft, true);
}

static int start_raft(
    struct replica *replica, const struct replica_member *members, size_t count, bool join, struct err *err)
{
    if (!join && bootstrap(replica, members, count, err))
        return -1;
    int status = raft_start(&replica->raft);
    if (status != 0 && replica->open_error.code != ERR_NONE)
        *err = replica->open_error;
    else if (status != 0)
        err_set(err, ERR_CORRUPT,
            "loading the log: %s (a member that lost its log is removed, emptied and added again)",
            replica->raft.errmsg);
    return status == 0 ? 0 : -1;
}

static struct replica *replica_new(
    uv_loop_t *loop, const struct replica_options *options, const struct replica_fsm *fsm)
{
    struct replica *replica = mem_zalloc(sizeof *replica);
    replica->loop = loop;
    replica->fsm = *fsm;
    replica->lock_fd = -1;
    replica->known_role = -1;
    replica->election_ms = options->election_ms ? options->election_ms : DEFAULT_ELECTION_MS;
    replica->heartbeat_ms = options->heartbeat_ms ? options->heartbeat_ms : DEFAULT_HEARTBEAT_MS;
    snprintf(replica->name, sizeof replica->name, "%s", options->name);
    request_list_init(&replica->waiting);
    request_list_init(&replica->in_raft);
    request_list_init(&replica->done);
    replica_fsm_init(replica);
    return replica;
}

/* Own address in libraft's words: from the list, or just the name for one that joins. */
static void own_text(
    const struct replica *replica, const struct replica_member *members, size_t count, char out[static MEMBER_TEXT_MAX])
{
    struct err err;
    snprintf(out, MEMBER_TEXT_MAX, "%s", replica->name);
    for (size_t i = 0; i < count; i++)
        if (strcmp(members[i].name, replica->name) == 0)
            ENSURE(member_format(&members[i], &err, out) == 0); /* the list has been checked */
}

/* libraft's handles need the loop to close: the rest of an attempt goes by itself. */
static void abandon(struct raft *raft)
{
    struct replica *replica = raft->data;
    replica_move(replica, STATE_CLOSED);
    kick_arm(replica->kick);
}

int replica_open(struct wire *wire, uv_loop_t *loop, const struct replica_options *options,
    const struct replica_fsm *fsm, const struct replica_member *members, size_t count, bool join, struct err *err,
    struct replica **out)
{
    char text[MEMBER_TEXT_MAX];
    if (check_options(options, members, count, join, err))
        return -1;
    struct replica *replica = replica_new(loop, options, fsm);
    struct transport_options transport = {.wire = wire,
        .loop = loop,
        .name = replica->name,
        .listen = options->listen,
        .admit = admit,
        .leading = leading,
        .may_install = may_install,
        .other = other_message,
        .user = replica};
    struct disk_network network;
    int status;
    if (open_directory(replica, options->directory, err))
        goto fail;
    if (transport_new(&transport, err, &replica->transport))
        goto fail_directory;
    network = transport_network(replica->transport);
    if (disk_new(loop, options->directory, &network, err, &replica->disk))
        goto fail_transport;
    own_text(replica, members, count, text);
    status = raft_init(&replica->raft, disk_io(replica->disk), &replica->raft_fsm, member_id(replica->name), text);
    if (status != 0) {
        err_set(err, ERR_INTERNAL, "the raft directory %s: %s", options->directory, raft_strerror(status));
        goto fail_disk;
    }
    replica->kick = kick_new(loop, replica_turn, replica);
    replica->bound = loop_timer_new(loop, replica_close_stalled, replica);
    replica->reads =
        readindex_new((uint64_t)clock_wall_ms() << 20, replica->heartbeat_ms, ask_voter, read_done, replica);
    set_up_raft(replica, options);
    if (start_raft(replica, members, count, join, err)) {
        err_wrap(err, "the raft directory %s", options->directory);
        replica_move(replica, STATE_CLOSING);
        raft_close(&replica->raft, abandon);
        return -1;
    }
    replica_move(replica, STATE_OPEN);
    kick_arm(replica->kick);
    *out = replica;
    return 0;
fail_disk:
    disk_free(replica->disk);
fail_transport:
    transport_free(replica->transport);
fail_directory:
    close(replica->lock_fd);
fail:
    free(replica);
    return -1;
}

void replica_close(struct replica *replica, void (*closed)(void *user), void *user)
{
    ENSURE(!replica->closed);
    replica->closed = closed;
    replica->closed_user = user;
    replica->close_wanted = true;
    kick_arm(replica->kick);
}
