#include "tests/unit/raft/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"

/* ---- state machine ---- */

static uint8_t pattern(uint64_t number, size_t at)
{
    return (uint8_t)((number * 2654435761u + at * 31) >> 7);
}

static void remember(struct node *node, uint64_t number)
{
    if (node->count == node->cap) {
        node->cap = node->cap ? node->cap * 2 : 64;
        node->numbers = mem_realloc(node->numbers, node->cap * sizeof *node->numbers);
    }
    node->numbers[node->count++] = number;
}

static void node_apply(void *user, const uint8_t *entry, size_t len, struct buf *result)
{
    struct node *node = user;
    uint64_t number, answer[2];
    assert_true(len >= sizeof number);
    memcpy(&number, entry, sizeof number);
    for (size_t i = sizeof number; i < len; i++)
        assert_int_equal(entry[i], pattern(number, i));
    remember(node, number);
    answer[0] = number;
    answer[1] = node->count;
    buf_append(result, answer, sizeof answer);
}

static void node_snapshot(void *user, struct buf *out)
{
    struct node *node = user;
    uint64_t count = node->count, ballast = node->cluster->ballast;
    buf_append(out, &count, sizeof count);
    buf_append(out, &ballast, sizeof ballast);
    buf_append(out, node->numbers, node->count * sizeof *node->numbers);
    uint8_t *bytes = buf_reserve(out, ballast);
    for (size_t i = 0; i < ballast; i++)
        bytes[i] = pattern(count, i);
    out->len += ballast;
}

static int node_restore(void *user, const uint8_t *data, size_t len, struct err *err)
{
    struct node *node = user;
    uint64_t count, ballast, number;
    if (len < 16)
        return err_set(err, ERR_CORRUPT, "the snapshot is too short");
    memcpy(&count, data, 8);
    memcpy(&ballast, data + 8, 8);
    if (len != 16 + count * 8 + ballast)
        return err_set(err, ERR_CORRUPT, "the snapshot has a wrong length");
    node->count = 0;
    for (uint64_t i = 0; i < count; i++) {
        memcpy(&number, data + 16 + i * 8, 8);
        remember(node, number);
    }
    for (size_t i = 0; i < ballast; i++)
        assert_int_equal(data[16 + count * 8 + i], pattern(count, i));
    node->restored++;
    return 0;
}

static void node_on_leader(void *user, bool leader)
{
    struct node *node = user;
    assert_true(node->leader != leader);
    node->leader = leader;
    node->led += leader;
}

/* ---- life ---- */

static bool cluster_auth(void *user, const uint8_t key[KEY_BYTES], struct principal *out)
{
    struct cluster *cluster = user;
    for (size_t i = 0; i < cluster->count; i++) {
        if (memcmp(key, cluster->nodes[i].key.public_key, KEY_BYTES) == 0) {
            out->kind = PRINCIPAL_CONTROLLER;
            snprintf(out->name, sizeof out->name, "%s", cluster->nodes[i].member.name);
            return true;
        }
    }
    if (!cluster->outsider_known || memcmp(key, cluster->outsider.public_key, KEY_BYTES) != 0)
        return false;
    out->kind = cluster->outsider_kind;
    snprintf(out->name, sizeof out->name, "%s", cluster->outsider_name);
    return true;
}

void cluster_new(struct cluster *cluster, size_t count)
{
    char directory[] = "/tmp/drover-raft-test-XXXXXX";
    struct err err;
    /* Every process has loopback addresses of its own, so that tests may run side by side. */
    unsigned pid = (unsigned)getpid();
    memset(cluster, 0, sizeof *cluster);
    assert_int_equal(uv_loop_init(&cluster->loop), 0);
    assert_non_null(mkdtemp(directory));
    memcpy(cluster->directory, directory, sizeof directory);
    cluster->count = count;
    for (size_t i = 0; i < count; i++) {
        struct node *node = &cluster->nodes[i];
        node->cluster = cluster;
        assert_int_equal(key_generate(&err, &node->key), 0);
        memcpy(node->member.public_key, node->key.public_key, KEY_BYTES);
        node->member.role = REPLICA_VOTER;
        snprintf(node->member.name, sizeof node->member.name, "c%zu", i + 1);
        snprintf(node->member.address, sizeof node->member.address, "tcp://127.%u.%u.%u:%zu", 64 + (pid >> 16) % 64,
            pid >> 8 & 255, pid & 255, 7400 + 2 * i);
        snprintf(node->directory, sizeof node->directory, "%s/c%zu", directory, i + 1);
    }
    assert_int_equal(key_generate(&err, &cluster->outsider), 0);
}

static struct replica_fsm node_fsm(struct node *node)
{
    return (struct replica_fsm){.user = node,
        .apply = node_apply,
        .snapshot = node_snapshot,
        .restore = node_restore,
        .on_leader = node_on_leader};
}

static void node_closed(void *user)
{
    struct node *node = user;
    node->closed = true;
    node->replica = NULL;
}

void cluster_open(struct cluster *cluster, size_t i, size_t members)
{
    struct node *node = &cluster->nodes[i];
    struct replica_member list[CLUSTER_MAX];
    struct replica_options options = {.name = node->member.name,
        .directory = node->directory,
        .listen = node->member.address,
        .election_ms = cluster->election_ms ? cluster->election_ms : 1000,
        .heartbeat_ms = 20,
        .snapshot_threshold = cluster->snapshot_threshold,
        .disk_stall_ms = cluster->disk_stall_ms};
    struct replica_fsm fsm = node_fsm(node);
    struct err err = {0};
    for (size_t n = 0; n < members; n++)
        list[n] = cluster->nodes[n].member;
    node->closed = false;
    node->count = 0;
    if (members > 0 && access(node->directory, F_OK) != 0 && replica_found(&options, list, members, &err))
        fail_msg("%s: %s", node->member.name, err.message);
    if (wire_new(&cluster->loop, &node->key, "test", cluster_auth, cluster, &err, &node->wire) ||
        replica_open(node->wire, &cluster->loop, &options, &fsm, list, members, members == 0, &err, &node->replica))
        fail_msg("%s: %s", node->member.name, err.message);
}

void cluster_close(struct cluster *cluster, size_t i)
{
    struct node *node = &cluster->nodes[i];
    if (!node->replica)
        return;
    replica_close(node->replica, node_closed, node);
    cluster_until(cluster, CLUSTER_WAIT_MS, node->closed);
    assert_false(node->leader);
    wire_free(node->wire);
    node->wire = NULL;
}

void cluster_open_fails(struct cluster *cluster, size_t i, size_t members, struct err *err)
{
    struct node *node = &cluster->nodes[i];
    struct replica_options options = {
        .name = node->member.name, .directory = node->directory, .listen = node->member.address};
    struct replica_fsm fsm = node_fsm(node);
    struct replica_member list[CLUSTER_MAX];
    struct replica *replica;
    struct wire *wire;
    uv_loop_t loop; /* of its own: it runs until nothing is left of the attempt */
    for (size_t n = 0; n < members; n++)
        list[n] = cluster->nodes[n].member;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(wire_new(&loop, &node->key, "test", NULL, NULL, err, &wire), 0);
    assert_int_equal(replica_open(wire, &loop, &options, &fsm, list, members, false, err, &replica), -1);
    wire_free(wire);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

pid_t cluster_fork(const struct cluster *cluster, void (*run)(struct cluster *cluster))
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid != 0)
        return pid;
    struct cluster own = *cluster;
    log_setup("child", LOG_INFO);
    setenv("CMOCKA_TEST_ABORT", "1", 1); /* else a failure would go on here with the next test */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || uv_loop_init(&own.loop) != 0)
        _exit(1);
    for (size_t i = 0; i < own.count; i++)
        own.nodes[i].cluster = &own;
    run(&own);
    _exit(0);
}

int cluster_in_child(const struct cluster *cluster, void (*run)(struct cluster *cluster))
{
    int status;
    pid_t pid = cluster_fork(cluster, run);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

void cluster_free(struct cluster *cluster)
{
    struct err err;
    for (size_t i = 0; i < cluster->count; i++) {
        cluster_close(cluster, i);
        free(cluster->nodes[i].numbers);
    }
    loop_close(&cluster->loop);
    assert_int_equal(file_remove_tree(cluster->directory, &err), 0);
}

/* ---- running ---- */

uint64_t cluster_deadline(uint64_t timeout_ms)
{
    return clock_now_ms() + timeout_ms;
}

static void wake(uv_timer_t *timer)
{
    (void)timer;
}

void cluster_turn(struct cluster *cluster, uint64_t deadline_ms, const char *what, const char *file, int line)
{
    static uv_timer_t timer; /* so that the loop always comes back */
    if (clock_now_ms() > deadline_ms) {
        print_error("timed out waiting for %s\n", what);
        _fail(file, line);
    }
    uv_timer_init(&cluster->loop, &timer);
    uv_timer_start(&timer, wake, 5, 0);
    uv_run(&cluster->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&cluster->loop, UV_RUN_NOWAIT);
}

void cluster_run_for(struct cluster *cluster, uint64_t duration_ms)
{
    uint64_t until = cluster_deadline(duration_ms);
    cluster_until(cluster, duration_ms + 10000, clock_now_ms() >= until);
}

struct node *cluster_leader(struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->count; i++)
        if (cluster->nodes[i].replica && cluster->nodes[i].leader)
            return &cluster->nodes[i];
    return NULL;
}

struct node *cluster_wait_leader(struct cluster *cluster)
{
    cluster_until(cluster, CLUSTER_WAIT_MS, cluster_leader(cluster));
    return cluster_leader(cluster);
}

void outcome_take(void *user, const struct err *err, const uint8_t *result, size_t len)
{
    struct outcome *out = user;
    assert_false(out->done);
    out->done = true;
    out->code = err ? err->code : ERR_NONE;
    snprintf(out->message, sizeof out->message, "%s", err ? err->message : "");
    if (len == 16) {
        memcpy(&out->number, result, 8);
        memcpy(&out->count, result + 8, 8);
    }
}

void node_submit(struct node *node, uint64_t number, size_t size, struct outcome *out)
{
    uint8_t *entry = mem_alloc(size);
    memcpy(entry, &number, sizeof number);
    for (size_t i = sizeof number; i < size; i++)
        entry[i] = pattern(number, i);
    memset(out, 0, sizeof *out);
    replica_submit(node->replica, entry, size, outcome_take, out);
    assert_false(out->done); /* never from inside the call */
    free(entry);
}

void node_put(struct node *node, uint64_t number, size_t size)
{
    struct outcome outcome;
    node_submit(node, number, size, &outcome);
    cluster_until(node->cluster, CLUSTER_WAIT_MS, outcome.done);
    assert_string_equal(outcome.message, "");
    assert_int_equal(outcome.number, number);
}

bool cluster_equal(struct cluster *cluster, size_t count)
{
    const struct node *first = NULL;
    for (size_t i = 0; i < cluster->count; i++) {
        const struct node *node = &cluster->nodes[i];
        if (!node->replica)
            continue;
        first = first ? first : node;
        if (node->count != count || memcmp(node->numbers, first->numbers, count * sizeof *node->numbers) != 0)
            return false;
    }
    return true;
}

struct replica_status node_status(const struct node *node)
{
    struct replica_status status;
    replica_status(node->replica, &status);
    return status;
}

void cluster_begin(struct cluster *cluster, size_t count, size_t members)
{
    cluster_new(cluster, count);
    cluster->snapshot_threshold = 32;
    for (size_t i = 0; i < members; i++)
        cluster_open(cluster, i, members);
}

size_t node_index(const struct node *node)
{
    return (size_t)(node - node->cluster->nodes);
}

static void outcome_expect(struct cluster *cluster, struct outcome *outcome, enum err_code expected)
{
    assert_false(outcome->done);
    cluster_until(cluster, CLUSTER_WAIT_MS, outcome->done);
    if (outcome->code != expected)
        fail_msg("expected %s, got %s", err_name(expected), outcome->message);
}

void cluster_withdraw(
    struct cluster *cluster, struct node *leader, const struct replica_member *member, enum err_code expected)
{
    struct outcome outcome = {0};
    replica_withdraw(leader->replica, member, outcome_take, &outcome);
    outcome_expect(cluster, &outcome, expected);
}

void cluster_change(struct cluster *cluster, struct node *leader, const struct replica_member *add, const char *remove,
    enum err_code expected)
{
    struct outcome outcome = {0};
    if (add)
        replica_add(leader->replica, add, outcome_take, &outcome);
    else
        replica_remove(leader->replica, remove, outcome_take, &outcome);
    outcome_expect(cluster, &outcome, expected);
}
