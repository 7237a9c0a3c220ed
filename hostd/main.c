/* drover-hostd: runs a host's partitions. See README.md. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/exporter.h"
#include "base/file.h"
#include "base/loop.h"
#include "base/program.h"
#include "hostd/agent.h"
#include "hostd/console.h"
#include "hostd/dispatch.h"
#include "hostd/facts.h"
#include "hostd/last_call.h"
#include "hostd/metrics.h"
#include "hostd/partition/room.h"

#define PROGRAM "drover-hostd " DROVER_VERSION

struct hostd {
    uv_loop_t loop;
    struct options options;
    bool stand_in;
    struct peerlist_entry controllers[OPTIONS_CONTROLLERS_MAX];
    size_t controller_count;
    int locks[2]; /* of the state and the memory directory, while we run */
    struct facts facts;
    struct hypervisor *hypervisor;
    struct net *net;
    struct cgroups *cgroups;
    struct ledger *ledger;
    struct outcomes *outcomes;
    struct actions *actions;
    struct visits *visits;
    char visit_keys[PATH_MAX];
    struct partitions *partitions;
    struct stats *stats;
    struct console *console;
    struct wire *wire;
    struct agent *agent;
    struct exporter *exporter;
    struct dispatch dispatch;
    uv_signal_t last_call;
    bool closing;
    struct hostd_metrics metrics;
};

/* Two hostds on one directory would run each other's partitions. A lock of fcntl(2) is not inherited by a process
 * between its fork and its program, as flock(2)'s would be, which could keep out the next hostd for a moment. */
static int lock_directory(const char *directory, struct err *err, int *out)
{
    char path[PATH_MAX];
    if (file_make_private(directory, err) < 0)
        return -1;
    snprintf(path, sizeof path, "%s/hostd.lock", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot open %s", path);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &lock) < 0) {
        close(fd);
        return err_set(err, ERR_BUSY, "another drover-hostd uses %s (it holds %s)", directory, path);
    }
    *out = fd;
    return 0;
}

/* Files that an earlier hostd was killed over while it wrote them. */
static void sweep_temporary(const char *directory)
{
    DIR *dir = opendir(directory);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);
        if (len > 4 && strcmp(entry->d_name + len - 4, ".tmp") == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir)
        closedir(dir);
}

static void changed(void *user)
{
    struct hostd *h = user;
    agent_poke(h->agent);
}

static int open_machine(struct hostd *h, struct err *err)
{
    struct options *o = &h->options;
    struct hypervisor_options hypervisor = {o->qemu, o->accelerator, o->tracker, o->shim, o->tcg_cache_mb};
    /* Before ZeroMQ makes threads: this forks. */
    if (lock_directory(o->directory, err, &h->locks[0]) < 0 ||
        lock_directory(o->memory_directory, err, &h->locks[1]) < 0)
        return -1;
    options_bound_memory(o, room_directory_bytes(o->memory_directory));
    if (hypervisor_open(&h->loop, &hypervisor, err, &h->hypervisor) < 0 ||
        facts_gather(o, hypervisor_facts(h->hypervisor), err, &h->facts) < 0 ||
        net_open(o->bridge, o->uplink, err, &h->net) < 0)
        return -1;
    h->cgroups = cgroups_open(&h->loop, o->directory);
    return 0;
}

static int open_state(struct hostd *h, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/outcomes", h->options.directory);
    sweep_temporary(h->options.directory);
    sweep_temporary(path);
    snprintf(path, sizeof path, "%s/ledger.json", h->options.directory);
    if (ledger_open(path, err, &h->ledger) < 0)
        return -1;
    snprintf(path, sizeof path, "%s/outcomes", h->options.directory);
    if (outcomes_open(path, err, &h->outcomes) < 0)
        return -1;
    h->actions = actions_open(h->ledger);
    snprintf(h->visit_keys, sizeof h->visit_keys, "%s/visits", h->options.directory);
    const struct visits_options visits = {
        .loop = &h->loop,
        .program = h->options.engine,
        .directory = h->options.reuse_directory,
        .key_directory = h->visit_keys,
        .memory_directory = h->options.memory_directory,
        .max_bytes = h->options.reuse_bytes,
        .max_age_ms = h->options.reuse_hours * 3600000,
    };
    h->visits = visits_open(&visits);
    struct partitions_env env = {
        .loop = &h->loop,
        .options = &h->options,
        .hypervisor = h->hypervisor,
        .net = h->net,
        .cgroups = h->cgroups,
        .ledger = h->ledger,
        .outcomes = h->outcomes,
        .visits = h->visits,
        .actions = h->actions,
        .boot_id = h->facts.boot_id,
        .on_change = changed,
        .user = h,
    };
    if (partitions_open(&env, err, &h->partitions) < 0)
        return -1;
    h->stats = stats_open(&h->loop, h->partitions, h->cgroups, h->net);
    h->console = console_open(&h->loop, h->partitions);
    return 0;
}

static int open_session(struct hostd *h, struct err *err)
{
    struct key_pair key;
    if (key_load(h->options.key, err, &key) < 0)
        return -1;
    int rc = wire_new(&h->loop, &key, PROGRAM, NULL, NULL, err, &h->wire);
    key_wipe(&key, sizeof key);
    if (rc < 0)
        return -1;
    h->dispatch = (struct dispatch){h->partitions, h->console};
    struct agent_options agent = {
        .loop = &h->loop,
        .wire = h->wire,
        .controllers = h->controllers,
        .controller_count = h->controller_count,
        .facts = &h->facts.message,
        .stand_in = h->stand_in,
        .partitions = h->partitions,
        .outcomes = h->outcomes,
        .visits = h->visits,
        .stats = h->stats,
        .handler = dispatch_request,
        .handler_user = &h->dispatch,
    };
    if (agent_open(&agent, err, &h->agent) < 0)
        return -1;
    h->metrics = (struct hostd_metrics){&h->options, h->partitions, h->outcomes, h->stats, h->agent, h->wire};
    if (h->options.metrics_listen[0])
        return exporter_open(
            &h->loop, h->options.metrics_listen, hostd_metrics_collect, &h->metrics, err, &h->exporter);
    return 0;
}

/* Lets go of everything; partitions and engines go on without us. */
static void close_all(void *user)
{
    struct hostd *h = user;
    h->closing = true;
    if (h->exporter)
        exporter_close(h->exporter);
    actions_close(h->actions);
    console_close(h->console);
    stats_close(h->stats);
    partitions_close(h->partitions);
    agent_close(h->agent);
    visits_close(h->visits);
    if (h->wire)
        wire_free(h->wire);
    outcomes_close(h->outcomes);
    ledger_close(h->ledger);
    cgroups_close(h->cgroups);
    net_close(h->net);
    hypervisor_close(h->hypervisor);
    loop_stop_listening(&h->loop);
}

static void called(uv_signal_t *handle, int number)
{
    struct hostd *h = handle->data;
    (void)number;
    if (h->partitions && !h->closing) /* else it calls again */
        partitions_shut_down(h->partitions);
}

static void listen_for_last_call(struct hostd *h)
{
    ENSURE(uv_signal_init(&h->loop, &h->last_call) == 0);
    h->last_call.data = h;
    ENSURE(uv_signal_start(&h->last_call, called, LAST_CALL_SIGNAL) == 0);
    uv_unref((uv_handle_t *)&h->last_call);
}

static int run(struct hostd *h, struct err *err)
{
    ENSURE(uv_loop_init(&h->loop) == 0);
    listen_for_last_call(h);
    int rc = options_controllers(&h->options, err, h->controllers, &h->controller_count);
    if (rc == 0)
        rc = loop_on_stop(&h->loop, close_all, h, err);
    if (rc == 0)
        rc = open_machine(h, err);
    if (rc == 0)
        rc = open_state(h, err);
    if (rc == 0)
        rc = open_session(h, err);
    if (rc == 0) {
        log_event(
            LOG_INFO, "program.started", "directory=%s controllers=%zu", h->options.directory, h->controller_count);
        uv_run(&h->loop, UV_RUN_DEFAULT);
    } else {
        close_all(h);
    }
    loop_close(&h->loop);
    return rc;
}

static void manual(FILE *out)
{
    config_print_manual(options_keys, out);
}

enum { SWITCH_STAND_IN, SWITCH_SHUTDOWN_GUESTS };
static const struct program_switch switches[] = {
    [SWITCH_STAND_IN] = {"--stand-in",
        "once, on a machine that gets the key of another one which is gone, and switched off, for good: what ran\n"
        "there is free from then on. Without it a machine with another's key is refused while that one has VMs."},
    [SWITCH_SHUTDOWN_GUESTS] = {"--shutdown-guests",
        "the drover-hostd that runs has its guests shut down and takes no more until it is restarted; waits until\n"
        "none is left, for host.shutdown_seconds at most. For drover-guests.service, when the system goes down."},
    {NULL},
};
static const struct program program = {"drover-hostd",
    "runs the partitions of one host; they go on when it stops, and are taken up again when it starts",
    "--config FILE [--stand-in | --shutdown-guests]", switches, manual};

int main(int argc, char **argv)
{
    struct hostd h = {.locks = {-1, -1}};
    struct err err;
    struct program_args args;
    int status;
    if (!program_args(&program, argc, argv, &status, &args))
        return status;
    h.stand_in = args.switches & 1u << SWITCH_STAND_IN;
    bool last = args.switches & 1u << SWITCH_SHUTDOWN_GUESTS;
    if (last && h.stand_in)
        return program_misused(&program, "--stand-in and --shutdown-guests exclude each other");
    log_setup("drover-hostd", LOG_INFO);
    crashpoint_open(0);
    if (options_load(args.config, &err, &h.options) < 0) {
        fprintf(stderr, "drover-hostd: %s\n", err.message);
        return err_exit_status(err.code);
    }
    log_setup("drover-hostd", (enum log_level)log_level_parse(h.options.log_level));
    umask(0077);
    int rc = last ? last_call(&h.options, &err) : run(&h, &err);
    options_free(&h.options);
    if (rc < 0) {
        log_event(LOG_ERROR, "program.failed", "reason=%s", LOG_QUOTE(err.message));
        return err_exit_status(err.code);
    }
    if (!last)
        log_event(LOG_INFO, "program.stopped", "partitions=%s", "left running");
    return 0;
}
