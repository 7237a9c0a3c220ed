/* replica: one member of one replicated log. It knows bytes, not VMs.
 *
 * Stands on libraft (canonical/raft, 0.22) with its libuv disk backend; messages between members travel over wire, so
 * that only enrolled controllers take part. The happy path: the leader's replica_submit() appends an entry, a majority
 * has it on disk, every member's apply() sees it in the same order, and the submitter's callback gets apply()'s result.
 *
 * Failure modes: not the leader -> ERR_NOT_LEADER; leadership lost while an entry is under way -> ERR_UNAVAILABLE, and
 * nobody knows yet whether it will be applied: commands carry an id, so that a retry is recognized by the state
 * machine. A disk error is logged and ends the process: a supervisor restarts it and the others go on. Entries are at
 * most REPLICA_ENTRY_MAX bytes; a snapshot travels in chunks on a connection of its own, so it cannot delay heartbeats.
 *
 * Everything runs on the loop's thread; callbacks are never made from inside the call that caused them. */
#ifndef RAFT_REPLICA_H
#define RAFT_REPLICA_H

#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/wire.h"

#define REPLICA_ENTRY_MAX (256u << 10)

struct replica;

enum replica_role { REPLICA_SPARE, REPLICA_STANDBY, REPLICA_VOTER };

/* The state machine. */
struct replica_fsm {
    void *user;
    /* Applies one entry; may not fail. `result` is handed to the submitter if it is on this member (copied), else
     * dropped. */
    void (*apply)(void *user, const uint8_t *entry, size_t len, struct buf *result);
    /* Writes the whole state into `out`. */
    void (*snapshot)(void *user, struct buf *out);
    /* Replaces the state by a snapshot; an error ends the process. */
    MUST_CHECK int (*restore)(void *user, const uint8_t *data, size_t len, struct err *err);
    /* Leadership of this member began or ended. `leader` true: a barrier of the new term has been applied, reads are
     * valid. */
    void (*on_leader)(void *user, bool leader);
};

struct replica_member {
    char name[WIRE_PRINCIPAL_MAX];  /* the principal's name; its raft id is derived from it */
    char address[WIRE_ADDRESS_MAX]; /* tcp://IP:PORT of its raft server */
    uint8_t public_key[KEY_BYTES];
    enum replica_role role;
};

struct replica_options {
    const char *name;            /* this member's */
    const char *directory;       /* of the log and snapshots */
    const char *listen;          /* address to bind; the port after it is used for snapshots */
    uint32_t election_ms;        /* 0: 500 */
    uint32_t heartbeat_ms;       /* 0: 50 */
    uint32_t snapshot_threshold; /* entries; 0: 8192 */
    uint32_t disk_stall_ms;      /* a write that takes longer ends the process; 0: 30000 */
};

/* Founds a cluster, once, on each of its first members, before they are opened: makes the directory (mode 0700) and
 * writes the first entry with `members`; all must be given the same list. ERR_EXISTS: the directory has data. If it was
 * cut off, even by a loss of power, it is done again from the beginning. Never for a member that has lost its log: it
 * would vote without what it had acknowledged. Blocks on the disk. */
MUST_CHECK int replica_found(
    const struct replica_options *options, const struct replica_member *members, size_t count, struct err *err);
/* Opens the replica: loads snapshot and log, connects to the members of its configuration. A directory without a log is
 * ERR_NOT_FOUND, unless `join`: that makes it if need be (mode 0700) and waits to be added by the leader.
 * `wire`'s auth function must know the controllers. Take: replica_close(). */
MUST_CHECK int replica_open(struct wire *wire, uv_loop_t *loop, const struct replica_options *options,
    const struct replica_fsm *fsm, const struct replica_member *members, size_t count, bool join, struct err *err,
    struct replica **out);
/* Hands leadership over if it has it, closes, then calls `closed`, after which the memory is gone. Callbacks of entries
 * under way are called with ERR_CANCELLED first. */
void replica_close(struct replica *replica, void (*closed)(void *user), void *user);

/* `err` NULL: applied, with the result of apply(), lent for the call. */
typedef void (*replica_done_fn)(void *user, const struct err *err, const uint8_t *result, size_t len);
/* Appends an entry (copied). `fn` is called exactly once. */
void replica_submit(struct replica *replica, const uint8_t *entry, size_t len, replica_done_fn fn, void *user);
/* Linearizable read: `fn` is called once this member has proved that it still leads and has applied everything that was
 * committed when the call was made. No disk write (Ongaro's thesis, section 6.4, read index). */
void replica_read(struct replica *replica, replica_done_fn fn, void *user);

/* Membership: one change at a time, only on the leader. Adding makes a standby, lets it catch up, then a voter.
 * ERR_EXISTS: just this member votes already. ERR_INVALID: its name, address or raft id is another member's. A voter is
 * removed only if a majority of the voters that remain keeps up: ERR_WRONG_STATE names those that do not. */
void replica_add(struct replica *replica, const struct replica_member *member, replica_done_fn fn, void *user);
void replica_remove(struct replica *replica, const char *name, replica_done_fn fn, void *user);
/* Takes replica_add() of this member back, however far it came. A member of that name with another address or key is
 * not the one that was added, and stays: ERR_NOT_FOUND. */
void replica_withdraw(struct replica *replica, const struct replica_member *member, replica_done_fn fn, void *user);

/* This member leads and has found that the member `name` no longer has what it has acknowledged: its log was lost. It
 * gets no entries from this leader; it has to be removed, emptied and added again. */
bool replica_lost_its_log(const struct replica *replica, const char *name);

struct replica_status {
    bool leader;                          /* and ready for reads */
    char leader_name[WIRE_PRINCIPAL_MAX]; /* empty: none known */
    uint64_t term, commit_index, applied_index, last_index;
    uint64_t snapshots_taken, elections;
};
void replica_status(const struct replica *replica, struct replica_status *out);
/* Fills up to `max` members of the current configuration; returns how many there are. */
size_t replica_members(const struct replica *replica, struct replica_member *out, size_t max);

#endif
