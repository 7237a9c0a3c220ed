/* A member whose disk fails ends its process, rather than go on with a term, a vote or entries that are nowhere. The
 * file size limit plays the broken disk, in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/file.h"
#include "tests/unit/raft/cluster.h"

static void break_disk(void)
{
    struct rlimit none = {0, 0};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
}

static void write_a_term(struct cluster *cluster)
{
    for (size_t i = 0; i < 3; i++)
        cluster_open(cluster, i, 3);
    struct node *leader = cluster_wait_leader(cluster);
    break_disk();
    cluster_close(cluster, (size_t)(leader - cluster->nodes)); /* its successor takes a new term */
    cluster_run_for(cluster, 5000);
}

static void write_entries(struct cluster *cluster)
{
    cluster_open(cluster, 0, 1);
    struct node *leader = cluster_wait_leader(cluster);
    struct outcome outcome;
    break_disk();
    node_submit(leader, 1, 8, &outcome);
    cluster_until(cluster, CLUSTER_WAIT_MS, outcome.done);
}

/* Runs a cluster in a child; expects the exit status of an internal error. */
static void expect_end(size_t members, void (*run)(struct cluster *cluster))
{
    struct cluster cluster;
    struct err err;
    cluster_new(&cluster, members);
    cluster.disk_stall_ms = 2000;
    int status = cluster_in_child(&cluster, run);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 70);
    cluster_free(&cluster);
    assert_int_equal(file_remove_tree(cluster.directory, &err), 0);
}

static void test_a_term_that_cannot_be_written_ends_the_process(void **state)
{
    (void)state;
    expect_end(3, write_a_term);
}

static void test_entries_that_do_not_reach_the_disk_end_the_process(void **state)
{
    (void)state;
    expect_end(1, write_entries);
}

static void test_a_directory_belongs_to_one(void **state)
{
    struct cluster cluster;
    struct replica_options options;
    struct replica_fsm fsm = {0};
    struct replica *second;
    struct err err;
    (void)state;
    cluster_new(&cluster, 2);
    cluster_open(&cluster, 0, 1);
    options = (struct replica_options){
        .name = "c2", .directory = cluster.nodes[0].directory, .listen = cluster.nodes[1].member.address};
    assert_int_equal(replica_open(cluster.nodes[0].wire, &cluster.loop, &options, &fsm, &cluster.nodes[1].member, 1,
                         false, &err, &second),
        -1);
    assert_int_equal(err.code, ERR_BUSY);
    cluster_free(&cluster);
}

/* Every byte of every file of a stopped member changed in turn would take long; the snapshot's and the log's first do.
 */
static void test_a_spoilt_log_is_not_opened(void **state)
{
    struct cluster cluster;
    struct err err = {0};
    char path[256];
    (void)state;
    cluster_new(&cluster, 1);
    cluster_open(&cluster, 0, 1);
    node_put(cluster_wait_leader(&cluster), 1, 8);
    cluster_close(&cluster, 0);
    snprintf(path, sizeof path, "%s/0000000000000001-0000000000000001", cluster.nodes[0].directory);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, 40, SEEK_SET), 0);
    assert_int_equal(fputs("spoilt", file) >= 0 && fclose(file) == 0, 1);
    for (int attempt = 0; attempt < 2; attempt++) {
        cluster_open_fails(&cluster, 0, 1, &err);
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_non_null(strstr(err.message, cluster.nodes[0].directory));
    }
    cluster_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_term_that_cannot_be_written_ends_the_process),
        cmocka_unit_test(test_entries_that_do_not_reach_the_disk_end_the_process),
        cmocka_unit_test(test_a_directory_belongs_to_one),
        cmocka_unit_test(test_a_spoilt_log_is_not_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
