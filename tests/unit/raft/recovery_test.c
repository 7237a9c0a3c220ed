/* A member that was killed starts again with all it has acknowledged, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "tests/unit/raft/cluster.h"

#define ENTRIES     6u
#define ENTRY_BYTES 1000u /* each lies in several sectors */
#define SECTOR      512u

static uint64_t number_of(size_t i)
{
    return 0x1122334455667700 + i;
}

static void put_and_die(struct cluster *cluster)
{
    cluster_open(cluster, 0, 1);
    struct node *node = cluster_wait_leader(cluster);
    for (size_t i = 0; i < ENTRIES; i++)
        node_put(node, number_of(i), ENTRY_BYTES);
    raise(SIGKILL);
}

static void fill_and_kill(const struct cluster *cluster)
{
    int status = cluster_in_child(cluster, put_and_die);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

/* A member of one, killed with its entries in an open segment. */
static void killed_new(struct cluster *cluster)
{
    cluster_new(cluster, 1);
    fill_and_kill(cluster);
}

/* The open segment that has the first entry, and where each of them begins in it. */
static void find_entries(const struct cluster *cluster, char path[static 512], size_t at[static ENTRIES])
{
    DIR *dir = opendir(cluster->nodes[0].directory);
    struct buf bytes = {0};
    struct err err;
    uint8_t *found = NULL;
    assert_non_null(dir);
    for (struct dirent *entry; !found && (entry = readdir(dir)) != NULL;) {
        if (strncmp(entry->d_name, "open-", 5) != 0)
            continue;
        snprintf(path, 512, "%s/%s", cluster->nodes[0].directory, entry->d_name);
        assert_int_equal(file_read(path, 64u << 20, &err, &bytes), 0);
        for (size_t i = 0; i < ENTRIES; i++) {
            uint64_t number = number_of(i);
            found = memmem(bytes.data, bytes.len, &number, sizeof number);
            if (!found)
                break;
            at[i] = (size_t)(found - bytes.data);
        }
    }
    assert_non_null(found);
    closedir(dir);
    buf_free(&bytes);
}

static void overwrite(const char *path, size_t at, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void expect_numbers(struct cluster *cluster, size_t count)
{
    struct node *node = cluster_wait_leader(cluster);
    assert_int_equal(node->count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(node->numbers[i], number_of(i % ENTRIES));
}

static void test_a_killed_member_has_all_it_acknowledged(void **state)
{
    struct cluster cluster;
    (void)state;
    killed_new(&cluster);
    cluster_open(&cluster, 0, 1);
    expect_numbers(&cluster, ENTRIES);
    cluster_free(&cluster);
}

/* Whether others follow it or not: somebody may have been told that it is safe. */
static void spoilt_byte_is_not_opened(size_t entry)
{
    struct cluster cluster;
    size_t at[ENTRIES];
    char path[512];
    struct err err = {0};
    killed_new(&cluster);
    find_entries(&cluster, path, at);
    overwrite(path, at[entry] + 20, "\xff", 1);
    for (int attempt = 0; attempt < 2; attempt++) {
        cluster_open_fails(&cluster, 0, 1, &err);
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_non_null(strstr(err.message, strrchr(path, '/') + 1));
    }
    cluster_free(&cluster);
}

static void test_a_spoilt_byte_is_not_opened(void **state)
{
    (void)state;
    spoilt_byte_is_not_opened(2);
    spoilt_byte_is_not_opened(ENTRIES - 1);
}

static void test_a_last_write_that_was_cut_off_is_dropped(void **state)
{
    static const uint8_t zeros[ENTRY_BYTES];
    struct cluster cluster;
    size_t at[ENTRIES];
    char path[512];
    (void)state;
    killed_new(&cluster);
    find_entries(&cluster, path, at);
    size_t cut = (at[ENTRIES - 1] / SECTOR + 1) * SECTOR; /* from this sector on nothing was written */
    overwrite(path, cut, zeros, at[ENTRIES - 1] + ENTRY_BYTES - cut);
    cluster_open(&cluster, 0, 1);
    expect_numbers(&cluster, ENTRIES - 1);
    node_put(&cluster.nodes[0], number_of(ENTRIES - 1), ENTRY_BYTES);
    cluster_close(&cluster, 0);
    cluster_open(&cluster, 0, 1);
    expect_numbers(&cluster, ENTRIES);
    cluster_free(&cluster);
}

/* ---- shortening the log ---- */

#define MARKER "shortening"

static void make_file(const struct cluster *cluster, const char *name, const char *text)
{
    char path[512];
    struct err err;
    snprintf(path, sizeof path, "%s/%s", cluster->nodes[0].directory, name);
    assert_int_equal(file_write(path, text, strlen(text), 0600, &err), 0);
}

static bool has_file(const struct node *node, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", node->directory, name);
    return access(path, F_OK) == 0;
}

/* A member of one that was stopped, with its entries in one closed segment, the second of the log. */
static void stopped_new(struct cluster *cluster, char segment[static 64])
{
    cluster_new(cluster, 1);
    cluster_open(cluster, 0, 1);
    for (size_t i = 0; i < ENTRIES; i++)
        node_put(cluster_wait_leader(cluster), number_of(i), ENTRY_BYTES);
    unsigned long long last = node_status(&cluster->nodes[0]).last_index;
    cluster_close(cluster, 0);
    snprintf(segment, 64, "%016llu-%016llu", 2ull, last);
    assert_true(has_file(&cluster->nodes[0], segment));
}

/* As it was killed between the writing of the shorter segment and the removal of the longer one; those behind are there
 * still. Nothing is done about it without the marker. */
static void test_a_member_killed_while_it_shortens_its_log_starts_again(void **state)
{
    static const char shorter[] = "0000000000000002-0000000000000003", behind[] = "0000000000000090-0000000000000099";
    struct cluster cluster;
    char segment[64];
    struct err err = {0};
    (void)state;
    stopped_new(&cluster, segment);
    make_file(&cluster, shorter, "the first of the longer one's");
    make_file(&cluster, behind, "what has to go");
    cluster_open_fails(&cluster, 0, 1, &err);
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_true(has_file(&cluster.nodes[0], shorter) && has_file(&cluster.nodes[0], segment));
    make_file(&cluster, MARKER, "4\n");
    cluster_open(&cluster, 0, 1);
    expect_numbers(&cluster, ENTRIES);
    assert_false(has_file(&cluster.nodes[0], shorter) || has_file(&cluster.nodes[0], behind));
    assert_false(has_file(&cluster.nodes[0], MARKER));
    cluster_free(&cluster);
}

/* As it was killed between the removal of the longer segment and that of those behind it. */
static void test_a_gap_is_closed_where_the_log_was_shortened(void **state)
{
    static const char behind[] = "0000000000000090-0000000000000099";
    struct cluster cluster;
    char segment[64];
    struct err err = {0};
    (void)state;
    stopped_new(&cluster, segment);
    make_file(&cluster, behind, "what has to go");
    cluster_open_fails(&cluster, 0, 1, &err);
    make_file(&cluster, MARKER, "50\n");
    cluster_open(&cluster, 0, 1);
    expect_numbers(&cluster, ENTRIES);
    assert_false(has_file(&cluster.nodes[0], behind));
    cluster_free(&cluster);
}

/* The names that came to the directory and went from it, in their order, as "+NAME " and "-NAME ". */
static void read_events(int watch, struct buf *out)
{
    _Alignas(struct inotify_event) char events[65536];
    ssize_t len;
    while ((len = read(watch, events, sizeof events)) > 0) {
        for (char *at = events; at < events + len;) {
            const struct inotify_event *event = (const void *)at;
            buf_printf(out, "%c%s ", event->mask & (IN_MOVED_TO | IN_CREATE) ? '+' : '-', event->name);
            at += sizeof *event + event->len;
        }
    }
}

static int watch_new(const struct node *node)
{
    int watch = inotify_init1(IN_NONBLOCK);
    assert_true(watch >= 0);
    assert_true(inotify_add_watch(watch, node->directory, IN_MOVED_TO | IN_CREATE | IN_DELETE) >= 0);
    return watch;
}

/* As it was killed before the open segment was closed to be shortened, too: it says nowhere which entries it has, and
 * would go on where the closed one that goes had begun. So it goes, and before that one does. */
static void test_open_segments_go_with_a_closed_one(void **state)
{
    struct cluster cluster;
    struct buf events = {0};
    size_t at[ENTRIES];
    char segment[64], path[512], closed_goes[80], open_goes[80];
    (void)state;
    stopped_new(&cluster, segment);
    fill_and_kill(&cluster);
    find_entries(&cluster, path, at);
    assert_true(has_file(&cluster.nodes[0], segment));
    make_file(&cluster, MARKER, "2\n");
    int watch = watch_new(&cluster.nodes[0]);
    cluster_open(&cluster, 0, 1);
    expect_numbers(&cluster, 0);
    read_events(watch, &events);
    snprintf(open_goes, sizeof open_goes, "-%s ", strrchr(path, '/') + 1);
    snprintf(closed_goes, sizeof closed_goes, "-%s ", segment);
    const char *open = strstr(buf_str(&events), open_goes), *closed = strstr(buf_str(&events), closed_goes);
    const char *marker = strstr(buf_str(&events), "-" MARKER " ");
    if (!open || !closed || !marker || open > closed || closed > marker)
        fail_msg("not the open one, the closed one and the marker: %s", buf_str(&events));
    buf_free(&events);
    close(watch);
    cluster_free(&cluster);
}

/* As it was killed when the log had been shortened, and others were written in the place of what had gone. */
static void test_open_segments_behind_what_was_kept_stay(void **state)
{
    struct cluster cluster;
    unsigned long long last;
    char segment[64], marker[32];
    (void)state;
    stopped_new(&cluster, segment);
    fill_and_kill(&cluster);
    assert_int_equal(sscanf(segment, "%*u-%llu", &last), 1);
    snprintf(marker, sizeof marker, "%llu\n", last + 1);
    make_file(&cluster, MARKER, marker);
    cluster_open(&cluster, 0, 1);
    expect_numbers(&cluster, 2 * ENTRIES);
    assert_true(has_file(&cluster.nodes[0], segment));
    assert_false(has_file(&cluster.nodes[0], MARKER));
    cluster_free(&cluster);
}

static void test_a_marker_that_says_nothing_is_an_error(void **state)
{
    static const char *const texts[] = {"", "4", "0\n", "-4\n", "4 \n", "4\n4\n", "99999999999999999999\n"};
    struct cluster cluster;
    char segment[64];
    struct err err = {0};
    (void)state;
    stopped_new(&cluster, segment);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        make_file(&cluster, MARKER, texts[i]);
        cluster_open_fails(&cluster, 0, 1, &err);
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_non_null(strstr(err.message, MARKER));
        assert_true(has_file(&cluster.nodes[0], segment));
    }
    cluster_free(&cluster);
}

/* A leader that has entries which nobody else has gets others in their place. */
static void test_the_marker_stands_while_the_log_is_shortened(void **state)
{
    struct cluster cluster;
    struct outcome lost[3];
    struct buf events = {0};
    (void)state;
    cluster_new(&cluster, 3);
    for (size_t i = 0; i < 3; i++)
        cluster_open(&cluster, i, 3);
    struct node *old = cluster_wait_leader(&cluster);
    size_t first = (size_t)(old - cluster.nodes);
    node_put(old, 1, 8);
    cluster_close(&cluster, (first + 1) % 3);
    cluster_close(&cluster, (first + 2) % 3);
    uint64_t last = node_status(old).last_index;
    for (size_t i = 0; i < 3; i++)
        node_submit(old, 100 + i, 8, &lost[i]);
    cluster_until(&cluster, CLUSTER_WAIT_MS, node_status(old).last_index >= last + 3);
    cluster_close(&cluster, first);
    cluster_open(&cluster, (first + 1) % 3, 3);
    cluster_open(&cluster, (first + 2) % 3, 3);
    node_put(cluster_wait_leader(&cluster), 2, 8);
    int watch = watch_new(old);
    cluster_open(&cluster, first, 3);
    cluster_until(&cluster, CLUSTER_WAIT_MS, cluster_equal(&cluster, 2));
    cluster_until(&cluster, CLUSTER_WAIT_MS, (read_events(watch, &events), strstr(buf_str(&events), "-" MARKER " ")));
    const char *marked = strstr(buf_str(&events), "+" MARKER " "), *unmarked = strstr(buf_str(&events), "-" MARKER " ");
    const char *removed = strstr(buf_str(&events), "-0000");
    if (!marked || !unmarked || !removed || removed < marked || removed > unmarked)
        fail_msg("the marker did not stand: %s", buf_str(&events));
    buf_free(&events);
    close(watch);
    cluster_free(&cluster);
}

/* ---- another history ---- */

static void be_third(struct cluster *cluster)
{
    cluster->election_ms = 100000; /* it leads never */
    cluster_open(cluster, 2, 3);
    cluster_run_for(cluster, 120000);
}

static void restart_both(struct cluster *cluster)
{
    for (size_t i = 0; i < 2; i++)
        cluster_close(cluster, i);
    for (size_t i = 0; i < 2; i++)
        cluster_open(cluster, i, 3);
    cluster_wait_leader(cluster);
}

/* While the third sleeps, the other two are founded anew and write other entries. It ends with an error. */
static void test_a_member_of_another_history_ends(void **state)
{
    struct cluster cluster;
    struct err err;
    int status;
    (void)state;
    cluster_new(&cluster, 3);
    pid_t third = cluster_fork(&cluster, be_third);
    cluster_open(&cluster, 0, 3);
    struct node *leader = cluster_wait_leader(&cluster);
    for (size_t i = 0; i < ENTRIES;
         i++) /* acknowledged by the third, and but for the last it knows they are committed */
        node_put(leader, number_of(i), ENTRY_BYTES);
    uint64_t term = node_status(leader).term;
    assert_int_equal(kill(third, SIGSTOP), 0);
    assert_int_equal(waitpid(third, &status, WUNTRACED), third);
    cluster_close(&cluster, 0);
    assert_int_equal(file_remove_tree(cluster.nodes[0].directory, &err), 0);
    for (size_t i = 0; i < 2; i++)
        cluster_open(&cluster, i, 3);
    do
        restart_both(&cluster);
    while (node_status(cluster_leader(&cluster)).term <= term);
    for (size_t i = 0; i < 2 * ENTRIES; i++)
        node_put(cluster_wait_leader(&cluster), 100 + i, 8);
    assert_int_equal(kill(third, SIGCONT), 0);
    cluster_until(&cluster, 60000, waitpid(third, &status, WNOHANG) == third);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), err_exit_status(ERR_CORRUPT));
    cluster_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_killed_member_has_all_it_acknowledged),
        cmocka_unit_test(test_a_spoilt_byte_is_not_opened),
        cmocka_unit_test(test_a_last_write_that_was_cut_off_is_dropped),
        cmocka_unit_test(test_a_member_killed_while_it_shortens_its_log_starts_again),
        cmocka_unit_test(test_a_gap_is_closed_where_the_log_was_shortened),
        cmocka_unit_test(test_open_segments_go_with_a_closed_one),
        cmocka_unit_test(test_open_segments_behind_what_was_kept_stay),
        cmocka_unit_test(test_a_marker_that_says_nothing_is_an_error),
        cmocka_unit_test(test_the_marker_stands_while_the_log_is_shortened),
        cmocka_unit_test(test_a_member_of_another_history_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
