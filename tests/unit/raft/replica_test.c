/* The replica's contract on one member and on three: electing, replicating, reading, handing over, restarting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/unit/raft/cluster.h"

static void open_three(struct cluster *cluster)
{
    cluster_new(cluster, 3);
    for (size_t i = 0; i < 3; i++)
        cluster_open(cluster, i, 3);
}

static void test_one_member_is_a_cluster(void **state)
{
    struct cluster cluster;
    struct outcome outcome = {0};
    (void)state;
    cluster_new(&cluster, 1);
    cluster_open(&cluster, 0, 1);
    struct node *leader = cluster_wait_leader(&cluster);
    node_put(leader, 7, 8);
    node_put(leader, 8, 1000);
    replica_read(leader->replica, outcome_take, &outcome);
    assert_false(outcome.done);
    cluster_until(&cluster, CLUSTER_WAIT_MS, outcome.done);
    assert_int_equal(outcome.code, ERR_NONE);
    struct replica_status status = node_status(leader);
    assert_true(status.leader);
    assert_string_equal(status.leader_name, "c1");
    assert_int_equal(status.applied_index, status.commit_index);
    assert_int_equal(status.elections, 1);
    cluster_close(&cluster, 0);

    cluster_open(&cluster, 0, 1);
    cluster_wait_leader(&cluster);
    assert_true(cluster_equal(&cluster, 2));
    assert_int_equal(leader->numbers[1], 8);
    cluster_free(&cluster);
}

static void test_three_members_replicate(void **state)
{
    struct cluster cluster;
    struct outcome outcomes[100];
    (void)state;
    open_three(&cluster);
    struct node *leader = cluster_wait_leader(&cluster);
    for (uint64_t i = 0; i < 100; i++)
        node_submit(leader, i, 8 + i, &outcomes[i]); /* also lengths that are no multiple of 8 */
    cluster_until(&cluster, CLUSTER_WAIT_MS, outcomes[99].done);
    for (uint64_t i = 0; i < 100; i++) {
        assert_true(outcomes[i].done);
        assert_int_equal(outcomes[i].code, ERR_NONE);
        assert_int_equal(outcomes[i].number, i);
        assert_int_equal(outcomes[i].count, i + 1);
    }
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 100));
    for (size_t i = 0; i < 3; i++) {
        struct replica_status status = node_status(&cluster.nodes[i]);
        assert_string_equal(status.leader_name, leader->member.name);
        assert_int_equal(status.leader, &cluster.nodes[i] == leader);
        assert_int_equal(replica_members(cluster.nodes[i].replica, NULL, 0), 3);
    }
    cluster_free(&cluster);
}

static void test_followers_name_the_leader(void **state)
{
    struct cluster cluster;
    struct outcome outcomes[4] = {0};
    (void)state;
    open_three(&cluster);
    struct node *leader = cluster_wait_leader(&cluster);
    struct node *follower = leader == &cluster.nodes[0] ? &cluster.nodes[1] : &cluster.nodes[0];
    cluster_until(&cluster, CLUSTER_WAIT_MS, node_status(follower).leader_name[0]);
    node_submit(follower, 1, 8, &outcomes[0]);
    replica_read(follower->replica, outcome_take, &outcomes[1]);
    replica_add(follower->replica, &follower->member, outcome_take, &outcomes[2]);
    replica_remove(follower->replica, "c1", outcome_take, &outcomes[3]);
    cluster_until(&cluster, CLUSTER_WAIT_MS, outcomes[3].done);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(outcomes[i].code, ERR_NOT_LEADER);
        assert_non_null(strstr(outcomes[i].message, leader->member.name));
    }
    cluster_free(&cluster);
}

static void test_reads_need_a_quorum(void **state)
{
    struct cluster cluster;
    struct outcome reads[32] = {0}, alone = {0};
    (void)state;
    open_three(&cluster);
    struct node *leader = cluster_wait_leader(&cluster);
    uint64_t last_index = node_status(leader).last_index;
    for (size_t i = 0; i < 32; i++)
        replica_read(leader->replica, outcome_take, &reads[i]);
    cluster_until(&cluster, CLUSTER_WAIT_MS, reads[31].done);
    for (size_t i = 0; i < 32; i++)
        assert_int_equal(reads[i].code, ERR_NONE);
    assert_int_equal(node_status(leader).last_index, last_index); /* no write */

    for (size_t i = 0; i < 3; i++)
        if (&cluster.nodes[i] != leader)
            cluster_close(&cluster, i);
    replica_read(leader->replica, outcome_take, &alone);
    cluster_until(&cluster, CLUSTER_WAIT_MS, alone.done);
    assert_int_equal(alone.code, ERR_NOT_LEADER);
    assert_false(leader->leader);
    cluster_free(&cluster);
}

static void test_a_leader_that_closes_hands_over(void **state)
{
    struct cluster cluster;
    struct outcome outcomes[200];
    size_t acknowledged = 0;
    (void)state;
    open_three(&cluster);
    struct node *old = cluster_wait_leader(&cluster);
    for (uint64_t i = 0; i < 200; i++)
        node_submit(old, i, 64, &outcomes[i]);
    cluster_until(&cluster, CLUSTER_WAIT_MS, outcomes[20].done);
    uint64_t term = node_status(old).term;
    cluster_close(&cluster, (size_t)(old - cluster.nodes));
    for (size_t i = 0; i < 200; i++) {
        assert_true(outcomes[i].done); /* each call is answered before `closed` comes */
        assert_true(outcomes[i].code == ERR_NONE || outcomes[i].code == ERR_CANCELLED ||
                    outcomes[i].code == ERR_NOT_LEADER || outcomes[i].code == ERR_UNAVAILABLE);
        acknowledged += outcomes[i].code == ERR_NONE;
    }
    struct node *leader = cluster_wait_leader(&cluster);
    assert_true(leader != old);
    assert_int_equal(node_status(leader).term, term + 1);
    assert_true(leader->count >= acknowledged);
    for (uint64_t i = 0; i < acknowledged; i++)
        assert_int_equal(leader->numbers[i], i);
    node_put(leader, 1000, 8);
    cluster_open(&cluster, (size_t)(old - cluster.nodes), 3);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, leader->count));
    cluster_free(&cluster);
}

static void test_all_restart_from_disk(void **state)
{
    struct cluster cluster;
    (void)state;
    cluster_new(&cluster, 3);
    cluster.snapshot_threshold = 16;
    for (size_t i = 0; i < 3; i++)
        cluster_open(&cluster, i, 3);
    struct node *leader = cluster_wait_leader(&cluster);
    for (uint64_t i = 0; i < 100; i++)
        node_put(leader, i, 8 + i % 17);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 100));
    assert_true(node_status(leader).snapshots_taken > 0);
    for (size_t i = 0; i < 3; i++)
        cluster_close(&cluster, i);
    for (size_t i = 0; i < 3; i++)
        cluster_open(&cluster, i, 3);
    leader = cluster_wait_leader(&cluster);
    assert_true(leader->restored > 0);
    assert_int_equal(leader->count, 100);
    node_put(leader, 100, 8);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 101));
    for (uint64_t i = 0; i < 101; i++)
        assert_int_equal(leader->numbers[i], i);
    cluster_free(&cluster);
}

static void test_entries_have_a_bound(void **state)
{
    struct cluster cluster;
    struct outcome longest, longer;
    (void)state;
    open_three(&cluster);
    struct node *leader = cluster_wait_leader(&cluster);
    node_submit(leader, 1, REPLICA_ENTRY_MAX, &longest);
    node_submit(leader, 2, REPLICA_ENTRY_MAX + 1, &longer);
    cluster_until(&cluster, CLUSTER_WAIT_MS, longest.done && longer.done);
    assert_int_equal(longest.code, ERR_NONE);
    assert_int_equal(longer.code, ERR_INVALID);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 1));
    cluster_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_member_is_a_cluster),
        cmocka_unit_test(test_three_members_replicate),
        cmocka_unit_test(test_followers_name_the_leader),
        cmocka_unit_test(test_reads_need_a_quorum),
        cmocka_unit_test(test_a_leader_that_closes_hands_over),
        cmocka_unit_test(test_all_restart_from_disk),
        cmocka_unit_test(test_entries_have_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
