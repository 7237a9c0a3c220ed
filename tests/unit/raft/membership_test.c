/* Members that come, go, lag behind, and strangers that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "proto/raft.pb-c.h"
#include "tests/unit/raft/cluster.h"

static void test_a_lagging_member_gets_a_snapshot_in_chunks(void **state)
{
    struct cluster cluster;
    (void)state;
    cluster_begin(&cluster, 3, 3);
    cluster.ballast = 6u << 20; /* a dozen chunks */
    struct node *leader = cluster_wait_leader(&cluster);
    struct node *lagging = leader == &cluster.nodes[0] ? &cluster.nodes[1] : &cluster.nodes[0];
    cluster_close(&cluster, node_index(lagging));
    for (uint64_t i = 0; i < 150; i++)
        node_put(leader, i, 100);
    uint64_t term = node_status(leader).term;
    cluster_open(&cluster, node_index(lagging), 3);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 150));
    assert_true(lagging->restored > 0);
    assert_true(leader->leader);
    assert_int_equal(node_status(leader).term, term); /* nobody missed a heartbeat */
    node_put(leader, 150, 8);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 151));
    cluster_free(&cluster);
}

/* While a snapshot goes to one member, the others go on writing, and more snapshots are taken. */
static void test_writes_go_on_during_a_snapshot(void **state)
{
    struct cluster cluster;
    uint64_t next = 0;
    (void)state;
    cluster_begin(&cluster, 3, 3);
    cluster.ballast = 4u << 20;
    struct node *leader = cluster_wait_leader(&cluster);
    struct node *lagging = leader == &cluster.nodes[0] ? &cluster.nodes[1] : &cluster.nodes[0];
    cluster_close(&cluster, node_index(lagging));
    while (next < 100)
        node_put(leader, next++, 100);
    cluster_open(&cluster, node_index(lagging), 3);
    while (next < 200)
        node_put(leader, next++, 100);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, next));
    cluster_free(&cluster);
}

/* As it knows: the last change of a role may still be on its way to it. */
static size_t voters(const struct node *node)
{
    struct replica_member members[CLUSTER_MAX];
    size_t count = replica_members(node->replica, members, CLUSTER_MAX), found = 0;
    for (size_t i = 0; i < count; i++)
        found += members[i].role == REPLICA_VOTER;
    return found;
}

static void test_a_member_joins_and_another_leaves(void **state)
{
    struct cluster cluster;
    struct replica_member members[CLUSTER_MAX];
    (void)state;
    cluster_begin(&cluster, 4, 3);
    struct node *leader = cluster_wait_leader(&cluster), *joining = &cluster.nodes[3];
    for (uint64_t i = 0; i < 100; i++)
        node_put(leader, i, 20);
    cluster_open(&cluster, 3, 0);
    cluster_run_for(&cluster, 300);
    assert_int_equal(joining->count, 0);          /* it waits to be added */
    struct replica_member twin = joining->member; /* at an address in use, written in another way */
    const char *port = strrchr(leader->member.address, ':') + 1;
    snprintf(twin.address, sizeof twin.address, "%.*s0%s", (int)(port - leader->member.address), leader->member.address,
        port);
    cluster_change(&cluster, leader, &twin, NULL, ERR_INVALID);
    assert_int_equal(replica_members(leader->replica, members, CLUSTER_MAX), 3);
    cluster_change(&cluster, leader, &joining->member, NULL, ERR_NONE);
    cluster_change(&cluster, leader, &joining->member, NULL, ERR_EXISTS);
    struct replica_member impostor = joining->member; /* of its name, elsewhere: taking that back leaves it alone */
    strcpy(impostor.address, "tcp://127.0.0.1:4");
    cluster_change(&cluster, leader, &impostor, NULL, ERR_INVALID);
    cluster_withdraw(&cluster, leader, &impostor, ERR_NOT_FOUND);
    assert_int_equal(replica_members(leader->replica, members, CLUSTER_MAX), 4);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 100));
    assert_int_equal(replica_members(leader->replica, members, CLUSTER_MAX), 4);
    cluster_until(&cluster, CLUSTER_WAIT_MS, voters(joining) == 4);
    assert_string_equal(node_status(joining).leader_name, leader->member.name);

    struct node *leaving = leader == &cluster.nodes[0] ? &cluster.nodes[1] : &cluster.nodes[0];
    cluster_change(&cluster, leader, NULL, "nobody", ERR_NOT_FOUND);
    cluster_change(&cluster, leader, NULL, leaving->member.name, ERR_NONE);
    uint64_t term = node_status(leader).term;
    node_put(leader, 100, 20);
    cluster_run_for(&cluster, 1500); /* several of its election timeouts */
    assert_int_equal(node_status(leader).term, term);
    assert_false(leaving->leader);
    assert_int_equal(leaving->count, 100);
    cluster_close(&cluster, node_index(leaving));
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 101));

    /* All remember the members over a restart. */
    for (size_t i = 0; i < 4; i++)
        cluster_close(&cluster, i);
    for (size_t i = 0; i < 4; i++)
        if (&cluster.nodes[i] != leaving)
            cluster_open(&cluster, i, i == 3 ? 0 : 3);
    leader = cluster_wait_leader(&cluster);
    node_put(leader, 101, 20);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 102));
    assert_int_equal(replica_members(leader->replica, members, CLUSTER_MAX), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_not_equal(members[i].name, leaving->member.name);
    cluster_free(&cluster);
}

static void test_an_add_is_taken_back(void **state)
{
    struct cluster cluster;
    (void)state;
    cluster_begin(&cluster, 3, 2);
    struct node *leader = cluster_wait_leader(&cluster);
    cluster_open(&cluster, 2, 0);
    cluster_change(&cluster, leader, &cluster.nodes[2].member, NULL, ERR_NONE);
    cluster_withdraw(&cluster, leader, &cluster.nodes[2].member, ERR_NONE);
    assert_int_equal(replica_members(leader->replica, NULL, 0), 2);
    cluster_withdraw(&cluster, leader, &cluster.nodes[2].member, ERR_NOT_FOUND);
    cluster_free(&cluster);
}

static void test_a_leader_may_remove_itself(void **state)
{
    struct cluster cluster;
    (void)state;
    cluster_begin(&cluster, 3, 3);
    struct node *old = cluster_wait_leader(&cluster);
    node_put(old, 1, 8);
    cluster_change(&cluster, old, NULL, old->member.name, ERR_NONE);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_leader(&cluster) && cluster_leader(&cluster) != old);
    struct node *leader = cluster_leader(&cluster);
    node_put(leader, 2, 8);
    assert_int_equal(replica_members(leader->replica, NULL, 0), 2);
    cluster_free(&cluster);
}

/* One of three is dead: without one of the others, nothing could be decided any more. */
static void test_a_live_member_stays_until_the_dead_one_is_removed(void **state)
{
    struct cluster cluster;
    struct outcome outcome = {0};
    (void)state;
    cluster_begin(&cluster, 3, 3);
    struct node *leader = cluster_wait_leader(&cluster);
    size_t at = node_index(leader);
    struct node *dead = &cluster.nodes[(at + 1) % 3], *live = &cluster.nodes[(at + 2) % 3];
    node_put(leader, 1, 8);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 1));
    cluster_close(&cluster, node_index(dead));
    replica_remove(leader->replica, live->member.name, outcome_take, &outcome);
    cluster_until(&cluster, CLUSTER_WAIT_MS, outcome.done);
    assert_int_equal(outcome.code, ERR_WRONG_STATE);
    assert_non_null(strstr(outcome.message, dead->member.name));
    cluster_change(&cluster, leader, NULL, leader->member.name, ERR_WRONG_STATE);
    node_put(leader, 2, 8);
    assert_int_equal(voters(leader), 3);
    cluster_change(&cluster, leader, NULL, dead->member.name, ERR_NONE);
    cluster_change(&cluster, leader, NULL, live->member.name, ERR_NONE);
    node_put(leader, 3, 8);
    assert_int_equal(voters(leader), 1);
    cluster_free(&cluster);
}

static void test_one_member_grows_to_three(void **state)
{
    struct cluster cluster;
    (void)state;
    cluster_begin(&cluster, 3, 1);
    struct node *leader = cluster_wait_leader(&cluster);
    cluster_change(&cluster, leader, NULL, "c1", ERR_WRONG_STATE);
    node_put(leader, 1, 8);
    cluster_open(&cluster, 1, 0);
    cluster_open(&cluster, 2, 0);
    cluster_change(&cluster, leader, &cluster.nodes[1].member, NULL, ERR_NONE);
    cluster_change(&cluster, leader, &cluster.nodes[2].member, NULL, ERR_NONE);
    node_put(leader, 2, 8);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 2));
    cluster_close(&cluster, 0);
    leader = cluster_wait_leader(&cluster);
    node_put(leader, 3, 8);
    cluster_free(&cluster);
}

/* ---- strangers ---- */

struct stranger {
    struct wire *wire;
    struct wire_client *client, *bulk;
};

static bool nobody(void *user, const uint8_t key[KEY_BYTES], struct principal *out)
{
    (void)user, (void)key, (void)out;
    return false;
}

static void stranger_open(struct cluster *cluster, struct node *to, struct stranger *stranger)
{
    struct wire_options options = {0};
    char bulk[WIRE_ADDRESS_MAX];
    struct err err = {0};
    char *colon;
    memcpy(bulk, to->member.address, sizeof bulk);
    colon = strrchr(bulk, ':');
    colon[strlen(colon) - 1]++; /* the ports are even */
    if (wire_new(&cluster->loop, &cluster->outsider, "stranger", nobody, NULL, &err, &stranger->wire) ||
        wire_client_open(stranger->wire, to->member.address, to->key.public_key, &options, &err, &stranger->client) ||
        wire_client_open(stranger->wire, bulk, to->key.public_key, &options, &err, &stranger->bulk))
        fail_msg("%s", err.message);
}

static void stranger_close(struct stranger *stranger)
{
    wire_client_close(stranger->client);
    wire_client_close(stranger->bulk);
    wire_free(stranger->wire);
}

/* A vote for a term far away, and an entry: either would change what the member says of itself. */
static void stranger_attack(struct stranger *stranger, uint64_t term)
{
    Drover__RaftMessage message = DROVER__RAFT_MESSAGE__INIT;
    Drover__RaftAppend append = DROVER__RAFT_APPEND__INIT;
    struct err err;
    message.version = 1;
    message.term = term;
    message.kind_case = DROVER__RAFT_MESSAGE__KIND_APPEND;
    message.append = &append;
    int sent =
        wire_note(wire_client_peer(stranger->client), DROVER__RAFT_METHOD__RAFT_METHOD_MESSAGE, &message.base, &err);
    (void)sent; /* whether it leaves is the stranger's affair */
}

static void stranger_send_snapshot(struct stranger *stranger, struct outcome *out)
{
    Drover__RaftChunk chunk = DROVER__RAFT_CHUNK__INIT;
    uint8_t byte = 0;
    memset(out, 0, sizeof *out);
    chunk.transfer = 1;
    chunk.total_bytes = 1;
    chunk.data = (ProtobufCBinaryData){.len = 1, .data = &byte};
    wire_call(
        wire_client_peer(stranger->bulk), DROVER__RAFT_METHOD__RAFT_METHOD_CHUNK, &chunk.base, 500, outcome_take, out);
}

static void test_strangers_get_nothing_in(void **state)
{
    static const struct {
        bool known;
        enum principal_kind kind;
        bool gets_in;
    } cases[] = {{false, PRINCIPAL_CONTROLLER, false}, {true, PRINCIPAL_HOST, false}, {true, PRINCIPAL_USER, false},
        {true, PRINCIPAL_CONTROLLER, true} /* so that this test is known to be able to fail */};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cluster cluster;
        struct stranger stranger;
        struct outcome outcome;
        cluster_begin(&cluster, 1, 1);
        cluster.outsider_known = cases[i].known;
        cluster.outsider_kind = cases[i].kind;
        cluster.outsider_name = "c1x";
        struct node *leader = cluster_wait_leader(&cluster);
        node_put(leader, 1, 8);
        uint64_t term = node_status(leader).term;
        stranger_open(&cluster, leader, &stranger);
        if (cases[i].known)
            cluster_until(
                &cluster, 5000, wire_client_connected(stranger.client) && wire_client_connected(stranger.bulk));
        else
            cluster_run_for(&cluster, 300);
        assert_int_equal(wire_client_connected(stranger.client), cases[i].known);
        stranger_attack(&stranger, 1000);
        stranger_send_snapshot(&stranger, &outcome);
        cluster_until(&cluster, CLUSTER_WAIT_MS, outcome.done);
        assert_int_not_equal(outcome.code, ERR_NONE);
        cluster_run_for(&cluster, 200);
        assert_int_equal(node_status(leader).term != term, cases[i].gets_in);
        stranger_close(&stranger);
        cluster_free(&cluster);
    }
}

/* An old message of a leader, or one sent again, ends before what is committed, and knows of more that is. */
static void test_an_old_message_does_not_take_back_what_is_committed(void **state)
{
    Drover__RaftMessage message = DROVER__RAFT_MESSAGE__INIT;
    Drover__RaftAppend append = DROVER__RAFT_APPEND__INIT;
    struct stranger stranger;
    struct cluster cluster;
    struct err err;
    (void)state;
    cluster_begin(&cluster, 3, 3);
    cluster.outsider_known = true;
    cluster.outsider_kind = PRINCIPAL_CONTROLLER;
    cluster.outsider_name = "old";
    struct node *leader = cluster_wait_leader(&cluster);
    struct node *follower = leader == &cluster.nodes[0] ? &cluster.nodes[1] : &cluster.nodes[0];
    for (uint64_t i = 0; i < 20; i++)
        node_put(leader, i, 8);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 20));
    stranger_open(&cluster, follower, &stranger);
    cluster_until(&cluster, CLUSTER_WAIT_MS, wire_client_connected(stranger.client));
    struct replica_status before = node_status(follower);
    message.version = 1;
    message.term = before.term;
    message.kind_case = DROVER__RAFT_MESSAGE__KIND_APPEND;
    message.append = &append;
    append.prev_index = append.prev_term = 1;
    append.leader_commit = before.commit_index + 5;
    for (uint64_t until = cluster_deadline(200); clock_now_ms() < until;) {
        assert_int_equal(
            wire_note(wire_client_peer(stranger.client), DROVER__RAFT_METHOD__RAFT_METHOD_MESSAGE, &message.base, &err),
            0);
        cluster_turn(&cluster, UINT64_MAX, "", __FILE__, __LINE__);
        assert_true(node_status(follower).commit_index >= before.commit_index);
    }
    stranger_close(&stranger);
    cluster_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lagging_member_gets_a_snapshot_in_chunks),
        cmocka_unit_test(test_writes_go_on_during_a_snapshot),
        cmocka_unit_test(test_a_member_joins_and_another_leaves),
        cmocka_unit_test(test_an_add_is_taken_back),
        cmocka_unit_test(test_a_leader_may_remove_itself),
        cmocka_unit_test(test_a_live_member_stays_until_the_dead_one_is_removed),
        cmocka_unit_test(test_one_member_grows_to_three),
        cmocka_unit_test(test_strangers_get_nothing_in),
        cmocka_unit_test(test_an_old_message_does_not_take_back_what_is_committed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
