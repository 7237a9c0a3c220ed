/* Several replicas in one process, on one loop: real wires on loopback, real logs in a temporary directory.
 *
 * Their state machine is a list of numbers. An entry is a number and as many bytes more as the test wants, which follow
 * from the number, so that a changed or mixed-up entry is seen when it is applied. */
#ifndef TESTS_UNIT_RAFT_CLUSTER_H
#define TESTS_UNIT_RAFT_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "raft/replica.h"

#define CLUSTER_MAX 5

struct node {
    struct cluster *cluster;
    struct replica_member member;
    struct key_pair key;
    char directory[128];
    struct wire *wire;
    struct replica *replica;
    bool closed, leader;
    unsigned led, restored; /* how often on_leader(true) and restore() came */
    uint64_t *numbers;
    size_t count, cap;
};

struct cluster {
    uv_loop_t loop;
    char directory[64];
    struct node nodes[CLUSTER_MAX];
    size_t count;
    uint32_t snapshot_threshold;
    uint32_t election_ms;     /* 0: 1000, which a busy machine does not miss */
    uint32_t disk_stall_ms;   /* 0: the default */
    size_t ballast;           /* bytes more in every snapshot */
    struct key_pair outsider; /* enrolled as `outsider_kind`, if `outsider_known` */
    bool outsider_known;
    enum principal_kind outsider_kind;
    const char *outsider_name;
};

/* Makes `count` nodes (at most CLUSTER_MAX), none of them open. */
void cluster_new(struct cluster *cluster, size_t count);
/* Closes all, removes everything. */
void cluster_free(struct cluster *cluster);
/* Opens node `i`, founded with the first `members` nodes as voters if it is new; 0: it joins. */
void cluster_open(struct cluster *cluster, size_t i, size_t members);
void cluster_close(struct cluster *cluster, size_t i);
/* Fails the test if node `i` opens, with the first `members` nodes as its list; else fills `err`. */
void cluster_open_fails(struct cluster *cluster, size_t i, size_t members, struct err *err);

/* Forks; the child has a loop of its own in its copy of the cluster, runs `run` and exits with 0. It ends with the
 * parent, and by a signal if a check fails. Before any node has been opened here. */
pid_t cluster_fork(const struct cluster *cluster, void (*run)(struct cluster *cluster));
/* The status that waitpid() tells, once it has ended. */
int cluster_in_child(const struct cluster *cluster, void (*run)(struct cluster *cluster));

/* For what must happen; only a failing test waits so long. */
#define CLUSTER_WAIT_MS 60000
/* Runs the loop until `done` says so; fails the test after `timeout_ms`. */
#define cluster_until(cluster, timeout_ms, condition)                                                                  \
    for (uint64_t until_ = cluster_deadline(timeout_ms); !(condition);)                                                \
    cluster_turn(cluster, until_, #condition, __FILE__, __LINE__)
uint64_t cluster_deadline(uint64_t timeout_ms);
void cluster_turn(struct cluster *cluster, uint64_t deadline_ms, const char *what, const char *file, int line);
void cluster_run_for(struct cluster *cluster, uint64_t duration_ms);

/* The node that leads and has said so, or NULL. */
struct node *cluster_leader(struct cluster *cluster);
struct node *cluster_wait_leader(struct cluster *cluster);

/* What became of a call. */
struct outcome {
    bool done;
    enum err_code code;
    char message[ERR_MESSAGE_MAX];
    uint64_t number, count; /* what apply() answered */
};
void outcome_take(void *user, const struct err *err, const uint8_t *result, size_t len);
/* Submits the entry of `number`, `size` bytes long (at least 8). */
void node_submit(struct node *node, uint64_t number, size_t size, struct outcome *out);
/* Submits and waits for success. */
void node_put(struct node *node, uint64_t number, size_t size);
/* True when all open nodes hold the same list. */
bool cluster_equal(struct cluster *cluster, size_t count);
struct replica_status node_status(const struct node *node);
size_t node_index(const struct node *node);

/* A new cluster of `count` nodes that takes snapshots often; the first `members` of them are open and its members. */
void cluster_begin(struct cluster *cluster, size_t count, size_t members);
/* Has the leader take the adding of `member` back, and fails the test unless it ends as `expected`. */
void cluster_withdraw(
    struct cluster *cluster, struct node *leader, const struct replica_member *member, enum err_code expected);
/* Has the leader add `add`, or remove `remove`, and fails the test unless it ends as `expected`. */
void cluster_change(struct cluster *cluster, struct node *leader, const struct replica_member *add, const char *remove,
    enum err_code expected);

#endif
