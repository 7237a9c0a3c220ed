/* What the files of one replica share; nobody outside raft/ includes it.
 *
 * replica.c has the life of a replica and the calls of replica.h, which only note what is wanted and kick; turn.c does
 * it, on one of the loop's next rounds, outside of libraft and of the caller; membership.c has its part of that, fsm.c
 * what libraft calls in between. */
#ifndef RAFT_INTERNAL_H
#define RAFT_INTERNAL_H

#include <raft.h>

#include "base/loop.h"
#include "raft/disk.h"
#include "raft/kick.h"
#include "raft/member.h"
#include "raft/readindex.h"
#include "raft/replica.h"
#include "raft/transport.h"

/* Entries given to libraft at a time, and bytes of them; the rest waits here, up to the second pair. */
#define REPLICA_INFLIGHT_ENTRIES 4096u
#define REPLICA_INFLIGHT_BYTES   (16u << 20)
#define REPLICA_WAITING_ENTRIES  65536u
#define REPLICA_WAITING_BYTES    (64u << 20)

/* OPENING -> OPEN -> HANDING_OVER -> DRAINING -> CLOSING -> CLOSED
 *
 * HANDING_OVER is for leaders. DRAINING takes no more messages and waits for the disk: libraft 0.22.1 may fire its
 * close callback with a truncation still running, or never, when it is closed in the middle of a write. A replica that
 * cannot be opened goes from OPENING to CLOSING. libraft may be asked up to DRAINING. */
enum replica_state { STATE_OPENING, STATE_OPEN, STATE_HANDING_OVER, STATE_DRAINING, STATE_CLOSING, STATE_CLOSED };

/* Something a caller waits for: an entry, a read, or a change of the membership. */
struct request {
    struct request *next;
    replica_done_fn fn;
    void *user;
    struct raft_buffer entry; /* of an entry that waits */
    size_t bytes;
    struct raft_apply apply;
    struct buf result;
    bool failed;
    struct err err;
    struct replica *replica;
};

struct request_list {
    struct request *first, **last;
    size_t count, bytes;
};

void request_list_init(struct request_list *list);
void request_push(struct request_list *list, struct request *request);
struct request *request_pop(struct request_list *list);
/* Removes one of the list. */
void request_remove(struct request_list *list, struct request *request);

/* A change of the membership goes through these steps; membership.c has the picture. */
enum change_step {
    CHANGE_NONE,
    CHANGE_ADD,
    CHANGE_STANDBY,
    CHANGE_CATCH_UP,
    CHANGE_PROMOTE,
    CHANGE_REMOVE,
    CHANGE_MARK,
    CHANGE_HEARD,
    CHANGE_LEAVE
};

struct change {
    enum change_step step;
    struct request *request;
    struct replica_member member;
    raft_id id;
    struct raft_change raft;  /* libraft's request, one at a time */
    struct raft_barrier mark; /* likewise, of MARK */
    bool in_raft, answered;   /* it has it; it has answered, with `status` */
    int status;
    raft_index marked; /* of HEARD: what the others must have */
    raft_index seen;   /* of the catching up: where the member was, and since when it is no further */
    uint64_t seen_ms;  /* HEARD: since when it waits */
};

/* A member that refuses, again and again, what it has acknowledged to this leader. */
struct forgetful {
    raft_id id;
    uint64_t since_ms;
    bool told; /* the log and the status say that it has lost its log */
};

struct replica {
    struct raft raft;
    struct raft_fsm raft_fsm;
    struct replica_fsm fsm;
    struct disk *disk;
    struct transport *transport;
    struct readindex *reads;
    struct kick *kick;
    uv_loop_t *loop;
    char name[WIRE_PRINCIPAL_MAX];
    uint32_t election_ms, heartbeat_ms;
    enum replica_state state;

    struct request_list waiting, in_raft, done;
    struct change change;
    struct forgetful forgetful[MEMBERS_MAX];
    size_t forgetful_count;

    /* Leadership as this module knows it: the term won, whether its barrier is applied, and what the user was told. */
    raft_term leading_term;
    bool barrier_asked, ready, told_leader;
    /* The configuration the transport knows. */
    raft_index known_committed, known_uncommitted;
    unsigned known_members;
    int known_role;

    struct raft_transfer transfer;
    bool close_wanted, transferred;
    uint64_t until_ms;        /* of handing over and of draining */
    struct loop_timer *bound; /* of closing: libraft does not tick any more then */
    int lock_fd;              /* of the directory: one process at a time */
    void (*closed)(void *user);
    void *closed_user;
    uint64_t snapshots_taken, elections;
    struct err open_error; /* of the state machine, while opening */
};

/* What replica_open() and replica_found() begin with: found.c. The directory's lock is taken into `out`; with `make`
 * the directory is made if need be. */
MUST_CHECK int replica_check(const struct replica_options *options, const struct replica_member *members, size_t count,
    bool join, struct err *err);
/* The error of a directory without a log; -1. */
int replica_no_log(struct err *err);
MUST_CHECK int replica_lock(const char *path, bool make, struct err *err, int *out);
/* One function moves the state; it checks and logs. */
void replica_move(struct replica *replica, enum replica_state to);
/* libraft may be asked. */
bool replica_usable(const struct replica *replica);
bool replica_leads(const struct replica *replica);
void replica_turn(void *user);
void replica_close_stalled(void *user);
/* What the transport asks, and what it brings: inbound.c. `user` is the replica. */
raft_term replica_leading(void *user);
bool replica_may_install(void *user);
bool replica_admit(void *user, const char *from, struct raft_message *message);
void replica_take_message(void *user, raft_id from, uint32_t method, const uint8_t *body, size_t len);
void replica_ask_voter(void *user, raft_id voter, uint64_t round, raft_term term);
/* The functions libraft calls: fsm.c. */
void replica_fsm_init(struct replica *replica);
/* The request has ended: its callback comes with the turn. `err` NULL: well. Takes it. */
void request_end(struct replica *replica, struct request *request, const struct err *err);
/* Fills `err` with ERR_NOT_LEADER, naming the leader if one is known. */
void replica_not_leader(const struct replica *replica, struct err *err);
/* An error for a status of libraft. */
void replica_raft_error(const struct replica *replica, int status, const char *doing, struct err *err);

/* The change that is under way goes on, if there is one. */
void membership_step(struct replica *replica);
/* This member closes. */
void membership_fail(struct replica *replica, const struct err *err);

#endif
