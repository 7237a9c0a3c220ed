/* A cluster is founded when it is asked for. A member whose log has gone does not found it anew and vote. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/unit/raft/cluster.h"

static void expect_no_log(struct cluster *cluster, size_t i, size_t members)
{
    struct err err = {0};
    cluster_open_fails(cluster, i, members, &err);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, cluster->nodes[i].directory));
    assert_non_null(strstr(err.message, "--found"));
}

/* n1 and n2 hold entries that n3 has not. n2 loses its directory and comes back with n3 alone: were it to vote, the two
 * would be a majority that knows nothing of them. */
static void test_a_member_that_lost_its_log_does_not_vote(void **state)
{
    struct cluster cluster;
    struct err err;
    (void)state;
    cluster_new(&cluster, 3);
    for (size_t i = 0; i < 3; i++)
        cluster_open(&cluster, i, 3);
    struct node *leader = cluster_wait_leader(&cluster);
    size_t stays = (size_t)(leader - cluster.nodes), loses = (stays + 1) % 3, lags = (stays + 2) % 3;
    cluster_close(&cluster, lags);
    node_put(leader, 1, 8);
    node_put(leader, 2, 8);
    cluster_close(&cluster, loses);
    cluster_close(&cluster, stays);
    assert_int_equal(file_remove_tree(cluster.nodes[loses].directory, &err), 0);
    expect_no_log(&cluster, loses, 3);
    assert_int_equal(access(cluster.nodes[loses].directory, F_OK), -1); /* a mount that is missing is not filled in */
    assert_int_equal(mkdir(cluster.nodes[loses].directory, 0700), 0);
    expect_no_log(&cluster, loses, 3);
    expect_no_log(&cluster, loses, 3);
    cluster_open(&cluster, lags, 3);
    cluster_open(&cluster, stays, 3);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 2));
    cluster_free(&cluster);
}

static void test_a_log_is_founded_once(void **state)
{
    struct cluster cluster;
    struct err err = {0};
    (void)state;
    cluster_new(&cluster, 1);
    struct node *node = &cluster.nodes[0];
    struct replica_options options = {.name = node->member.name, .directory = node->directory};
    cluster_open(&cluster, 0, 1);
    node_put(cluster_wait_leader(&cluster), 1, 8);
    assert_int_equal(replica_found(&options, &node->member, 1, &err), -1);
    assert_int_equal(err.code, ERR_BUSY);
    cluster_close(&cluster, 0);
    assert_int_equal(replica_found(&options, &node->member, 1, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_non_null(strstr(err.message, node->directory));
    cluster_open(&cluster, 0, 1);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 1));
    cluster_free(&cluster);
}

static void test_only_a_member_founds(void **state)
{
    struct cluster cluster;
    struct err err = {0};
    (void)state;
    cluster_new(&cluster, 2);
    struct replica_options options = {.name = "c2", .directory = cluster.nodes[1].directory};
    assert_int_equal(replica_found(&options, &cluster.nodes[0].member, 1, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(access(cluster.nodes[1].directory, F_OK), -1);
    cluster_free(&cluster);
}

/* It leads at once, but not in a term in which it may have sent a standby what it has not kept. */
static void test_an_only_voter_starts_in_a_new_term(void **state)
{
    struct cluster cluster;
    uint64_t term = 0;
    (void)state;
    cluster_new(&cluster, 1);
    cluster.snapshot_threshold = 16;
    for (size_t round = 0; round < 3; round++) {
        cluster_open(&cluster, 0, 1);
        struct node *node = cluster_wait_leader(&cluster);
        assert_true(node_status(node).term > term);
        term = node_status(node).term;
        for (size_t i = 0; i < 40; i++) /* the configuration ends up in the snapshot */
            node_put(node, round * 40 + i, 8);
        cluster_close(&cluster, 0);
    }
    cluster_free(&cluster);
}

/* ---- founding that was cut off ---- */

/* The first file that libraft writes is there, the last one is not. */
static void test_a_founding_that_was_cut_off_is_done_again(void **state)
{
    struct cluster cluster;
    char path[256];
    struct err err = {0};
    (void)state;
    cluster_new(&cluster, 1);
    struct node *node = &cluster.nodes[0];
    struct replica_options options = {.name = node->member.name, .directory = node->directory};
    assert_int_equal(replica_found(&options, &node->member, 1, &err), 0);
    snprintf(path, sizeof path, "%s/0000000000000001-0000000000000001", node->directory);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(replica_found(&options, &node->member, 1, &err), -1); /* not one that is over */
    assert_int_equal(err.code, ERR_EXISTS);
    snprintf(path, sizeof path, "%s/founding", node->directory);
    assert_int_equal(file_write(path, "", 0, 0600, &err), 0);
    expect_no_log(&cluster, 0, 1);
    assert_int_equal(replica_found(&options, &node->member, 1, &err), 0);
    assert_int_equal(access(path, F_OK), -1);
    cluster_open(&cluster, 0, 1);
    node_put(cluster_wait_leader(&cluster), 1, 8);
    cluster_free(&cluster);
}

static void found_traced(struct cluster *cluster)
{
    struct node *node = &cluster->nodes[0];
    struct replica_options options = {.name = node->member.name, .directory = node->directory};
    struct err err;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 || raise(SIGSTOP) != 0 ||
        replica_found(&options, &node->member, 1, &err))
        _exit(1);
}

/* Killed after so many system calls; false: it had ended before. */
static bool found_killed(struct cluster *cluster, unsigned calls)
{
    pid_t child = cluster_fork(cluster, found_traced);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    for (unsigned stops = 0; stops < 2 * calls && WIFSTOPPED(status); stops++) { /* before and behind each */
        assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
    }
    if (!WIFSTOPPED(status)) {
        assert_int_equal(status, 0);
        return false;
    }
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    return true;
}

/* Wherever it is killed, the cluster is founded, or will be when it is asked for again. */
static void test_a_founding_is_killed_anywhere(void **state)
{
    struct cluster cluster;
    struct err err = {0};
    bool killed = true;
    (void)state;
    cluster_new(&cluster, 1);
    struct node *node = &cluster.nodes[0];
    struct replica_options options = {.name = node->member.name, .directory = node->directory};
    for (unsigned calls = 0; killed; calls++) {
        killed = found_killed(&cluster, calls);
        if (replica_found(&options, &node->member, 1, &err) != 0) {
            assert_int_equal(err.code, ERR_EXISTS);
            cluster_open(&cluster, 0, 1);
            cluster_close(&cluster, 0);
        }
        assert_int_equal(file_remove_tree(node->directory, &err), 0);
    }
    cluster_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_member_that_lost_its_log_does_not_vote),
        cmocka_unit_test(test_a_log_is_founded_once),
        cmocka_unit_test(test_only_a_member_founds),
        cmocka_unit_test(test_an_only_voter_starts_in_a_new_term),
        cmocka_unit_test(test_a_founding_that_was_cut_off_is_done_again),
        cmocka_unit_test(test_a_founding_is_killed_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
