/* Opening a replica: its directory, its servers, the log on disk, libraft on top. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/ensure.h"
#include "raft/internal.h"

#define DEFAULT_ELECTION_MS   500u
#define DEFAULT_HEARTBEAT_MS  50u
#define DEFAULT_SNAPSHOT      8192u
#define DEFAULT_DISK_STALL_MS 30000u

static void read_done(void *user, void *read, const struct err *err)
{
    request_end(user, read, err);
}

/* libraft has taken a step: this is inside of it. */
static void raft_stepped(struct raft *raft)
{
    struct replica *replica = raft->data;
    kick_arm(replica->kick);
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

static int start_raft(struct replica *replica, struct err *err)
{
    int status = raft_start(&replica->raft);
    if (status != 0 && replica->open_error.code != ERR_NONE)
        *err = replica->open_error;
    else if (status == RAFT_NOTFOUND)
        (void)replica_no_log(err);
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
    if (replica_check(options, members, count, join, err))
        return -1;
    struct replica *replica = replica_new(loop, options, fsm);
    struct transport_options transport = {.wire = wire,
        .loop = loop,
        .name = replica->name,
        .listen = options->listen,
        .admit = replica_admit,
        .leading = replica_leading,
        .may_install = replica_may_install,
        .other = replica_take_message,
        .user = replica};
    struct disk_network network;
    int status;
    if (replica_lock(options->directory, join, err, &replica->lock_fd))
        goto fail;
    if (transport_new(&transport, err, &replica->transport))
        goto fail_directory;
    network = transport_network(replica->transport);
    if (disk_new(loop, options->directory, options->disk_stall_ms ? options->disk_stall_ms : DEFAULT_DISK_STALL_MS,
            join, &network, err, &replica->disk))
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
        readindex_new((uint64_t)clock_wall_ms() << 20, replica->heartbeat_ms, replica_ask_voter, read_done, replica);
    set_up_raft(replica, options);
    if (start_raft(replica, err)) {
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
