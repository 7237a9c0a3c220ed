/* Three members, each in a process of its own, killed and paused at random while they replicate and read. Afterwards
 * all hold the same list, everything that was acknowledged is in it, nothing is in it twice, and no read missed what
 * had been acknowledged before it was asked. DROVER_TORTURE_SECONDS makes it longer, DROVER_TORTURE_SEED repeats its
 * choices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/unit/raft/cluster.h"

#define NODES     3
#define NUMBERS   400000u
#define IN_FLIGHT 24

/* What the processes share. */
struct shared {
    atomic_uint next; /* number */
    atomic_uchar acknowledged[NUMBERS];
    atomic_uint reads, failed_reads, acknowledged_count;
    atomic_bool stop, quit;
    _Atomic uint64_t count[NODES], hash[NODES];
    atomic_bool reported[NODES];
};

struct child {
    struct cluster cluster;
    struct node *node;
    struct shared *shared;
    struct outcome outcomes[IN_FLIGHT];
    uint64_t numbers[IN_FLIGHT];
    struct outcome read;
    bool reading;
    uint8_t *before; /* what was acknowledged when the read was asked */
};

static uint64_t list_hash(const struct node *node)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < node->count; i++)
        hash = (hash ^ node->numbers[i]) * 1099511628211u;
    return hash;
}

static void child_submit(struct child *child)
{
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        struct outcome *outcome = &child->outcomes[i];
        if (outcome->done && outcome->code == ERR_NONE) {
            atomic_store(&child->shared->acknowledged[child->numbers[i]], 1);
            atomic_fetch_add(&child->shared->acknowledged_count, 1);
        }
        bool free_slot = outcome->done || child->numbers[i] == UINT64_MAX;
        if (!free_slot || !child->node->leader || atomic_load(&child->shared->stop))
            continue;
        child->numbers[i] = atomic_fetch_add(&child->shared->next, 1);
        if (child->numbers[i] >= NUMBERS)
            abort(); /* make NUMBERS larger */
        node_submit(child->node, child->numbers[i], 8 + child->numbers[i] % 300, outcome);
    }
    for (size_t i = 0; i < IN_FLIGHT; i++)
        if (child->outcomes[i].done && (!child->node->leader || atomic_load(&child->shared->stop))) {
            child->outcomes[i] = (struct outcome){0};
            child->numbers[i] = UINT64_MAX;
        }
}

static void check_read(struct child *child)
{
    size_t bytes = atomic_load(&child->shared->next);
    uint8_t *present = calloc(1, NUMBERS);
    for (size_t i = 0; i < child->node->count; i++)
        present[child->node->numbers[i]] = 1;
    for (size_t i = 0; i < bytes; i++)
        if (child->before[i] && !present[i])
            atomic_fetch_add(&child->shared->failed_reads, 1);
    atomic_fetch_add(&child->shared->reads, 1);
    free(present);
}

static void child_read(struct child *child)
{
    if (child->reading && child->read.done) {
        child->reading = false;
        if (child->read.code == ERR_NONE)
            check_read(child);
    }
    if (child->reading || !child->node->leader)
        return;
    memset(&child->read, 0, sizeof child->read);
    memcpy(child->before, child->shared->acknowledged, NUMBERS);
    child->reading = true;
    replica_read(child->node->replica, outcome_take, &child->read);
}

static void write_list(const struct child *child, size_t i)
{
    char path[256];
    snprintf(path, sizeof path, "%s/list%zu", child->cluster.directory, i);
    FILE *file = fopen(path, "w");
    if (!file || fwrite(child->node->numbers, 8, child->node->count, file) != child->node->count || fclose(file) != 0)
        abort();
}

/* Whether this member has nothing under way, and what it holds. */
static void report(struct child *child, size_t i)
{
    struct replica_status status = node_status(child->node);
    bool busy = status.applied_index != status.last_index;
    for (size_t n = 0; n < IN_FLIGHT; n++)
        busy = busy || (child->numbers[n] != UINT64_MAX && !child->outcomes[n].done);
    atomic_store(&child->shared->hash[i], list_hash(child->node));
    atomic_store(&child->shared->reported[i], !busy);
}

static void child_main(const struct cluster *cluster, struct shared *shared, size_t i)
{
    static struct child child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    log_setup("torture", LOG_ERROR);
    child.cluster = *cluster;
    child.shared = shared;
    child.node = &child.cluster.nodes[i];
    child.before = malloc(NUMBERS);
    for (size_t n = 0; n < NODES; n++)
        child.cluster.nodes[n].cluster = &child.cluster;
    for (size_t n = 0; n < IN_FLIGHT; n++)
        child.numbers[n] = UINT64_MAX;
    if (uv_loop_init(&child.cluster.loop) != 0)
        abort();
    cluster_open(&child.cluster, i, NODES);
    while (!atomic_load(&shared->quit)) {
        cluster_turn(&child.cluster, UINT64_MAX, "", __FILE__, __LINE__);
        child_submit(&child);
        child_read(&child);
        atomic_store(&shared->count[i], child.node->count);
        if (atomic_load(&shared->stop))
            report(&child, i);
    }
    write_list(&child, i);
    cluster_close(&child.cluster, i);
    _exit(0);
}

/* ---- parent ---- */

struct process {
    pid_t pid;                  /* 0: killed */
    uint64_t start_ms, cont_ms; /* when to start or wake it again */
    bool stopped;
};

struct torture {
    struct cluster cluster;
    struct shared *shared;
    struct process processes[NODES];
    unsigned seed, kills, pauses;
};

static unsigned choose(struct torture *torture, unsigned below)
{
    return (unsigned)rand_r(&torture->seed) % below;
}

static void start(struct torture *torture, size_t i)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child_main(&torture->cluster, torture->shared, i);
    torture->processes[i] = (struct process){.pid = pid};
}

static void torment(struct torture *torture)
{
    size_t i = choose(torture, NODES);
    struct process *process = &torture->processes[i];
    uint64_t now_ms = clock_now_ms();
    if (!process->pid || process->stopped)
        return;
    if (choose(torture, 2)) {
        kill(process->pid, SIGKILL);
        assert_int_equal(waitpid(process->pid, NULL, 0), process->pid);
        *process = (struct process){.start_ms = now_ms + choose(torture, 700)};
        torture->kills++;
    } else {
        kill(process->pid, SIGSTOP);
        process->stopped = true;
        process->cont_ms = now_ms + 20 + choose(torture, 1200);
        torture->pauses++;
    }
}

/* Starts and wakes whose time has come; a process that ended by itself is a failure. */
static void tend(struct torture *torture, bool all)
{
    for (size_t i = 0; i < NODES; i++) {
        struct process *process = &torture->processes[i];
        uint64_t now_ms = clock_now_ms();
        int status;
        if (process->pid && waitpid(process->pid, &status, WNOHANG) == process->pid)
            fail_msg("member %zu ended by itself: status 0x%x", i, (unsigned)status);
        if (!process->pid && (all || now_ms >= process->start_ms))
            start(torture, i);
        if (process->stopped && (all || now_ms >= process->cont_ms)) {
            kill(process->pid, SIGCONT);
            process->stopped = false;
        }
    }
}

static bool settled(const struct shared *shared)
{
    for (size_t i = 0; i < NODES; i++)
        if (!atomic_load(&shared->reported[i]) || atomic_load(&shared->hash[i]) != atomic_load(&shared->hash[0]) ||
            atomic_load(&shared->count[i]) != atomic_load(&shared->count[0]) ||
            atomic_load(&shared->count[i]) < atomic_load(&shared->acknowledged_count))
            return false;
    return true;
}

static size_t read_list(const struct torture *torture, size_t i, uint64_t *out)
{
    char path[256];
    snprintf(path, sizeof path, "%s/list%zu", torture->cluster.directory, i);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(out, 8, NUMBERS, file);
    fclose(file);
    return n;
}

static void check_lists(const struct torture *torture)
{
    uint64_t *lists[NODES];
    uint8_t *seen = calloc(1, NUMBERS);
    size_t counts[NODES], missing = 0;
    for (size_t i = 0; i < NODES; i++) {
        lists[i] = malloc(NUMBERS * 8);
        counts[i] = read_list(torture, i, lists[i]);
        assert_int_equal(counts[i], counts[0]);
        assert_memory_equal(lists[i], lists[0], counts[0] * 8);
    }
    for (size_t i = 0; i < counts[0]; i++) {
        assert_true(lists[0][i] < NUMBERS);
        assert_false(seen[lists[0][i]]);
        seen[lists[0][i]] = 1;
    }
    for (size_t i = 0; i < NUMBERS; i++)
        missing += atomic_load(&torture->shared->acknowledged[i]) && !seen[i];
    assert_int_equal(missing, 0);
    for (size_t i = 0; i < NODES; i++)
        free(lists[i]);
    free(seen);
}

static void test_nothing_acknowledged_is_lost(void **state)
{
    const char *seconds = getenv("DROVER_TORTURE_SECONDS"), *seed = getenv("DROVER_TORTURE_SEED");
    static struct torture torture;
    (void)state;
    torture.seed = seed ? (unsigned)strtoul(seed, NULL, 10) : (unsigned)clock_wall_ms();
    print_message("DROVER_TORTURE_SEED=%u\n", torture.seed);
    torture.shared = mmap(NULL, sizeof *torture.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(torture.shared != MAP_FAILED);
    cluster_new(&torture.cluster, NODES);
    torture.cluster.snapshot_threshold = 256;
    torture.cluster.election_ms = 200;
    torture.cluster.ballast = 700000;
    for (size_t i = 0; i < NODES; i++)
        start(&torture, i);
    uint64_t end_ms = clock_now_ms() + 1000 * (seconds ? strtoul(seconds, NULL, 10) : 8);
    while (clock_now_ms() < end_ms) {
        usleep(100000 + choose(&torture, 900000)); /* the point is the random moment */
        tend(&torture, false);
        torment(&torture);
    }
    tend(&torture, true);
    atomic_store(&torture.shared->stop, true);
    for (uint64_t limit_ms = clock_now_ms() + 60000; !settled(torture.shared); usleep(10000)) {
        tend(&torture, true);
        if (clock_now_ms() > limit_ms)
            fail_msg("the members do not agree: %" PRIu64 " %" PRIu64 " %" PRIu64 " numbers", torture.shared->count[0],
                torture.shared->count[1], torture.shared->count[2]);
    }
    atomic_store(&torture.shared->quit, true);
    for (size_t i = 0; i < NODES; i++) {
        int status;
        assert_int_equal(waitpid(torture.processes[i].pid, &status, 0), torture.processes[i].pid);
        assert_int_equal(status, 0);
    }
    print_message("%u acknowledged, %u reads, %u kills, %u pauses\n", torture.shared->acknowledged_count,
        torture.shared->reads, torture.kills, torture.pauses);
    check_lists(&torture);
    assert_int_equal(torture.shared->failed_reads, 0);
    assert_true(torture.shared->acknowledged_count > 0 && torture.shared->reads > 0);
    cluster_free(&torture.cluster);
    munmap(torture.shared, sizeof *torture.shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_acknowledged_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
