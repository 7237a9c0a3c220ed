/* A voter that comes back without its log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "tests/unit/raft/cluster.h"

/* The leader knows what the member had, and sends it nothing before. It says so, and does what helps when it is asked.
 */
static void test_a_voter_that_lost_its_log_is_told_and_mended(void **state)
{
    struct cluster cluster;
    struct err err;
    (void)state;
    cluster_begin(&cluster, 3, 3);
    struct node *leader = cluster_wait_leader(&cluster);
    size_t loses = (node_index(leader) + 1) % 3;
    struct node *lost = &cluster.nodes[loses];
    for (uint64_t i = 0; i < 5; i++)
        node_put(leader, i, 8);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 5));
    cluster_close(&cluster, loses);
    node_put(leader, 5, 8);
    assert_int_equal(file_remove_tree(lost->directory, &err), 0);
    cluster_open(&cluster, loses, 0); /* it joins */
    cluster_until(&cluster, CLUSTER_WAIT_MS, replica_lost_its_log(leader->replica, lost->member.name));
    for (size_t i = 0; i < 3; i++)
        if (i != loses)
            assert_false(replica_lost_its_log(leader->replica, cluster.nodes[i].member.name));
    assert_int_equal(lost->count, 0);
    cluster_change(&cluster, leader, NULL, lost->member.name, ERR_NONE);
    cluster_change(&cluster, leader, &lost->member, NULL, ERR_NONE);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 6));
    assert_false(replica_lost_its_log(leader->replica, lost->member.name));
    cluster_free(&cluster);
}

/* A voter that was away and has its log is not taken for one that has none. */
static void test_a_voter_that_was_away_has_lost_nothing(void **state)
{
    struct cluster cluster;
    (void)state;
    cluster_begin(&cluster, 3, 3);
    struct node *leader = cluster_wait_leader(&cluster);
    size_t away = (node_index(leader) + 1) % 3;
    for (uint64_t round = 0; round < 3; round++) {
        cluster_close(&cluster, away);
        for (uint64_t i = 0; i < 10; i++)
            node_put(leader, round * 10 + i, 8);
        cluster_open(&cluster, away, 3);
        cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, (round + 1) * 10));
        assert_false(replica_lost_its_log(leader->replica, cluster.nodes[away].member.name));
    }
    cluster_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_voter_that_lost_its_log_is_told_and_mended),
        cmocka_unit_test(test_a_voter_that_was_away_has_lost_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
