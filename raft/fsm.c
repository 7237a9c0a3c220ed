/* The state machine as libraft sees it. libraft applies one entry after the other, in its own step: nothing here may
 * call it back. */
#include <string.h>

#include "base/ensure.h"
#include "raft/codec.h"
#include "raft/entry.h"
#include "raft/internal.h"

/* In front of every snapshot's data, which is therefore never empty (libraft could not store that). */
#define SNAPSHOT_MAGIC      "DvrSnap1"
#define SNAPSHOT_MAGIC_SIZE 8u

/* The request of this member's that put the entry at `index` into the log, if it is one. */
static struct request *request_at(struct replica *replica, raft_index index)
{
    struct request *first = replica->in_raft.first;
    while (first && first->apply.index < index)
        first = first->next;
    return first && first->apply.index == index ? first : NULL;
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *entry, void **out)
{
    struct replica *replica = fsm->data;
    /* libraft does not say which entry this is, but it moves last_applied after every one, commands and others. */
    struct request *request = request_at(replica, raft_last_applied(&replica->raft) + 1);
    struct buf dropped = {0};
    struct buf *result = request ? &request->result : &dropped;
    const uint8_t *data;
    size_t len;
    if (!entry_unwrap(entry, &data, &len))
        disk_fail("apply an entry", RAFT_CORRUPT, "it was not written by this program");
    buf_clear(result);
    replica->fsm.apply(replica->fsm.user, data, len, result);
    buf_free(&dropped);
    *out = NULL;
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    struct replica *replica = fsm->data;
    struct buf out = {0};
    /* libraft files the snapshot under its commit index, whatever has been applied: see keep_commit_index(). */
    ENSURE(raft_last_applied(&replica->raft) == raft_commit_index(&replica->raft));
    buf_append(&out, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE);
    replica->fsm.snapshot(replica->fsm.user, &out);
    if (out.len > CODEC_SNAPSHOT_MAX) {
        log_event(LOG_ERROR, "raft.snapshot_too_big", "bytes=%zu max=%llu", out.len, CODEC_SNAPSHOT_MAX);
        buf_free(&out);
        return RAFT_TOOBIG;
    }
    struct raft_buffer *list = raft_malloc(sizeof *list);
    ENSURE(list);
    *list = (struct raft_buffer){.base = out.data, .len = out.len};
    *bufs = list;
    *n_bufs = 1;
    replica->snapshots_taken++;
    return 0;
}

static int restore_data(struct replica *replica, const struct raft_buffer *buf, struct err *err)
{
    const uint8_t *data = buf->base;
    if (buf->len < SNAPSHOT_MAGIC_SIZE || memcmp(data, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE) != 0)
        return err_set(err, ERR_CORRUPT, "the snapshot was not written by this program");
    return replica->fsm.restore(replica->fsm.user, data + SNAPSHOT_MAGIC_SIZE, buf->len - SNAPSHOT_MAGIC_SIZE, err);
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct replica *replica = fsm->data;
    struct err err;
    if (restore_data(replica, buf, &err)) {
        if (replica->state != STATE_OPENING)
            disk_fail("restore a snapshot", RAFT_CORRUPT, err.message);
        replica->open_error = err;
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    return 0;
}

void replica_fsm_init(struct replica *replica)
{
    replica->raft_fsm = (struct raft_fsm){
        .version = 1, .data = replica, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
}
