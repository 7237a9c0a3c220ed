/* One QEMU process: its sockets, its monitor and its end.
 *
 * QEMU inherits listening sockets that hostd made, so that connecting never has to wait for it to come up, and an
 * adopted guest is reached at the same path. The monitor may be lost (hostd broke off, never QEMU) and is connected
 * again. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/loop.h"
#include "base/qmp.h"
#include "base/unixsock.h"
#include "hostd/child.h"
#include "hostd/hypervisor/qemu/command.h"
#include "hostd/hypervisor/qemu/halt.h"
#include "hostd/hypervisor/qemu/private.h"
#include "hostd/hypervisor/qemu/thaw.h"
#include "hostd/hypervisor/qemu/words.h"
#include "hostd/partition/paths.h"

#define COMMAND_TIMEOUT_MS 10000
#define QUIT_GRACE_MS      3000 /* to close its images */
#define RECONNECT_MS       500

struct guest {
    struct hypervisor *hv;
    struct guest_events events;
    struct child *child;
    struct qmp *qmp;
    struct loop_timer *reconnect;
    struct loop_timer *killer;
    char directory[PATH_MAX];
    bool ready;
    bool adopted;
    bool shut_down_by_guest;
    struct thaw *thaw;
    struct halt *halt;
    void (*jobs_fn)(void *user); /* of guest_observe_jobs() */
    void *jobs_user;
};

static void guest_connect(struct guest *guest);
static void guest_greet(struct guest *guest);

static int listen_at(const char *directory, enum path_file file, struct err *err, int *out)
{
    char path[PATH_MAX];
    return unixsock_listen(paths_file(directory, file, path), 4, err, out);
}

static void guest_exited(void *user, int status)
{
    struct guest *guest = user;
    char path[PATH_MAX], line[1024], words[256], why[400];
    qmp_close(guest->qmp);
    guest->qmp = NULL;
    loop_timer_stop(guest->reconnect);
    loop_timer_stop(guest->killer);
    halt_stop(guest->halt);
    child_last_line(paths_file(guest->directory, PATH_QEMU_LOG, path), sizeof line, line);
    words_explain(line, sizeof words, words);
    const char *colon = words[0] ? ": " : "";
    if (guest->shut_down_by_guest)
        snprintf(why, sizeof why, "the guest shut down");
    else if (status < 0)
        snprintf(why, sizeof why, "QEMU ended%s%s", colon, words);
    else if (status & 0x7f)
        snprintf(why, sizeof why, "QEMU was ended by signal %d%s%s", status & 0x7f, colon, words);
    else
        snprintf(why, sizeof why, "QEMU ended with status %d%s%s", status >> 8, colon, words);
    thaw_stop(guest->thaw);
    guest->events.on_ended(guest->events.user, guest->shut_down_by_guest, why);
}

static void guest_status_known(void *user, const struct err *err, json_t *result)
{
    struct guest *guest = user;
    if (err && err->code == ERR_TIMEOUT) {
        /* One that never answered is of no use. One that did, perhaps to an earlier hostd, may run a guest, whatever
         * holds its monitor up: it is asked until it answers. */
        log_event(LOG_WARN, "guest.unresponsive", "pid=%d reason=%s ready=%d", (int)child_id(guest->child).pid,
            LOG_QUOTE(err->message), guest->ready);
        if (guest->ready || guest->adopted)
            guest_greet(guest);
        else
            guest_kill(guest);
    }
    if (!err && guest->jobs_fn)
        guest->jobs_fn(guest->jobs_user);
    if (!err)
        halt_status(guest->halt, result);
    if (err || guest->ready)
        return;
    guest->ready = true;
    guest->events.on_ready(guest->events.user, json_is_true(json_object_get(result, "running")));
}

static void guest_event(void *user, const char *event, json_t *data, uint64_t at_ns)
{
    struct guest *guest = user;
    (void)at_ns;
    halt_event(guest->halt, event, data);
    if (strcmp(event, "SHUTDOWN") == 0) {
        guest->shut_down_by_guest = json_is_true(json_object_get(data, "guest"));
    } else if (strcmp(event, "JOB_STATUS_CHANGE") == 0) {
        if (guest->jobs_fn)
            guest->jobs_fn(guest->jobs_user);
    } else if (strcmp(event, "BLOCK_IO_ERROR") == 0) {
        const char *device = json_string_value(json_object_get(data, "qom-path"));
        const char *reason = json_string_value(json_object_get(data, "reason"));
        log_event(LOG_WARN, "disk.failed", "pid=%d device=%s reason=%s", (int)child_id(guest->child).pid,
            LOG_QUOTE(device ? device : "?"), LOG_QUOTE(reason ? reason : "?"));
    }
}

static void guest_qmp_closed(void *user, const struct err *err)
{
    struct guest *guest = user;
    (void)err;
    qmp_close(guest->qmp);
    guest->qmp = NULL;
    if (child_running(guest->child))
        loop_timer_start(guest->reconnect, RECONNECT_MS, 0);
}

static void guest_greet(struct guest *guest)
{
    qmp_command(guest->qmp, "query-status", NULL, guest->hv->ready_ms, guest_status_known, guest);
}

static void guest_reconnect_due(void *user)
{
    guest_connect(user);
}

static void guest_connect(struct guest *guest)
{
    char path[PATH_MAX];
    struct err err;
    struct qmp_options options = {guest_event, guest_qmp_closed, guest};
    if (guest->qmp || !child_running(guest->child))
        return;
    if (qmp_open(guest->hv->loop, paths_file(guest->directory, PATH_QMP, path), &options, &err, &guest->qmp) < 0) {
        loop_timer_start(guest->reconnect, RECONNECT_MS, 0);
        return;
    }
    guest_greet(guest);
}

static void guest_kill_due(void *user)
{
    guest_kill(user);
}

static void guest_halted(void *user, const char *why)
{
    struct guest *guest = user;
    guest->events.on_halted(guest->events.user, why);
}

static struct guest *guest_make(struct hypervisor *hv, const char *directory, const struct guest_events *events)
{
    struct guest *guest = mem_zalloc(sizeof *guest);
    guest->hv = hv;
    guest->events = *events;
    ENSURE(strlen(directory) < sizeof guest->directory);
    strcpy(guest->directory, directory);
    guest->reconnect = loop_timer_new(hv->loop, guest_reconnect_due, guest);
    guest->killer = loop_timer_new(hv->loop, guest_kill_due, guest);
    guest->thaw = thaw_new(hv, guest);
    guest->halt = halt_new(hv->loop, guest, guest_halted, guest);
    return guest;
}

/* The RAM file is made anew: what an earlier partition of this VM may have left is no memory of this one. */
static int ram_make(const char *path, uint64_t bytes, struct err *err)
{
    unlink(path);
    cleanup_fd int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot make the RAM file %s of %" PRIu64 " bytes", path, bytes);
    return 0;
}

static int guest_spawn(struct guest *guest, const struct guest_config *config, const int fds[3], struct err *err)
{
    char serial_log[PATH_MAX], qemu_log[PATH_MAX];
    struct hypervisor *hv = guest->hv;
    struct command_config command = {
        .program = hv->program,
        .vm_id = config->vm_id,
        .spec = config->spec,
        .accelerator = hv->facts.accelerator,
        .tcg_cache_mb = hv->tcg_cache_mb,
        .ram_path = config->ram_path,
        .serial_log = paths_file(config->directory, PATH_SERIAL_LOG, serial_log),
        .qmp_fd = fds[0],
        .qmp_engine_fd = fds[1],
        .serial_fd = fds[2],
        .taps = config->taps,
        .incoming = config->incoming,
        .disks_come = config->disks_come,
    };
    char **argv = command_build(&command);
    struct child_options child = {
        .argv = argv,
        .preload = hv->shim,
        .log_path = paths_file(config->directory, PATH_QEMU_LOG, qemu_log),
        .keep_fds = fds,
        .keep_count = 3,
        .cgroup_fds = config->cgroup_fds,
        .cgroup_count = config->cgroup_count,
    };
    int rc = child_fork(hv->loop, &child, guest_exited, guest, err, &guest->child);
    command_free(argv);
    if (rc < 0)
        return -1;
    if (guest->events.on_created(guest->events.user, child_id(guest->child), err) < 0 ||
        child_release(guest->child, err) < 0) {
        child_free(guest->child);
        guest->child = NULL;
        return -1;
    }
    return 0;
}

int guest_start(struct hypervisor *hv, const struct guest_config *config, const struct guest_events *events,
    struct err *err, struct guest **out)
{
    if (ram_make(config->ram_path, config->spec->memory_bytes, err) < 0)
        return -1;
    int fds[3] = {-1, -1, -1};
    struct guest *guest = guest_make(hv, config->directory, events);
    int rc = -1;
    if (listen_at(config->directory, PATH_QMP, err, &fds[0]) == 0 &&
        listen_at(config->directory, PATH_QMP_ENGINE, err, &fds[1]) == 0 &&
        listen_at(config->directory, PATH_SERIAL, err, &fds[2]) == 0)
        rc = guest_spawn(guest, config, fds, err);
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (rc < 0) {
        guest_free(guest);
        unlink(config->ram_path);
        return -1;
    }
    guest_connect(guest);
    *out = guest;
    return 0;
}

int guest_adopt(struct hypervisor *hv, const char *directory, struct process_id id, const struct guest_events *events,
    struct err *err, struct guest **out)
{
    struct guest *guest = guest_make(hv, directory, events);
    guest->adopted = true;
    if (child_adopt(hv->loop, id, guest_exited, guest, err, &guest->child) < 0) {
        guest_free(guest);
        return -1;
    }
    guest_connect(guest);
    *out = guest;
    return 0;
}

void guest_free(struct guest *guest)
{
    if (!guest)
        return;
    thaw_stop(guest->thaw);
    qmp_close(guest->qmp);
    child_free(guest->child);
    loop_timer_free(guest->reconnect);
    loop_timer_free(guest->killer);
    thaw_free(guest->thaw);
    halt_free(guest->halt);
    free(guest);
}

bool guest_command(
    struct guest *guest, const char *command, json_t *arguments, uint32_t timeout_ms, qmp_reply_fn fn, void *user)
{
    if (guest->qmp)
        qmp_command(guest->qmp, command, arguments, timeout_ms, fn, user);
    else
        json_decref(arguments);
    return guest->qmp != NULL;
}

void guest_observe_jobs(struct guest *guest, void (*fn)(void *user), void *user)
{
    guest->jobs_fn = fn;
    guest->jobs_user = user;
}

bool guest_power_down(struct guest *guest)
{
    return guest_command(guest, "system_powerdown", NULL, COMMAND_TIMEOUT_MS, NULL, NULL);
}

void guest_continue(struct guest *guest)
{
    halt_continue(guest->halt);
}

void guest_end(struct guest *guest)
{
    if (!guest->qmp || !guest->ready) {
        guest_kill(guest);
        return;
    }
    qmp_command(guest->qmp, "quit", NULL, COMMAND_TIMEOUT_MS, NULL, NULL);
    loop_timer_start(guest->killer, QUIT_GRACE_MS, 0);
}

void guest_kill(struct guest *guest)
{
    child_signal(guest->child, SIGKILL);
}

struct process_id guest_process(const struct guest *guest)
{
    return child_id(guest->child);
}

void guest_resume(struct guest *guest, guest_done_fn fn, void *user)
{
    guest_connect(guest);
    thaw_begin(guest->thaw, fn, user);
}

struct disk_ops_call {
    guest_disk_ops_fn fn;
    void *user;
};

static void guest_disk_ops_known(void *user, const struct err *err, json_t *result)
{
    struct disk_ops_call *call = user;
    struct guest_disk_ops ops = {0};
    size_t i;
    json_t *device;
    json_array_foreach(result, i, device)
    {
        json_t *stats = json_object_get(device, "stats");
        ops.reads += (uint64_t)json_integer_value(json_object_get(stats, "rd_operations"));
        ops.writes += (uint64_t)json_integer_value(json_object_get(stats, "wr_operations"));
    }
    call->fn(call->user, err, &ops);
    free(call);
}

bool guest_disk_ops(struct guest *guest, guest_disk_ops_fn fn, void *user)
{
    if (!guest->qmp || !guest->ready)
        return false;
    struct disk_ops_call *call = mem_alloc(sizeof *call);
    *call = (struct disk_ops_call){fn, user};
    qmp_command(guest->qmp, "query-blockstats", NULL, COMMAND_TIMEOUT_MS, guest_disk_ops_known, call);
    return true;
}
