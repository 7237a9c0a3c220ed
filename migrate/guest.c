#include "migrate/guest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/ensure.h"
#include "base/jsonfield.h"
#include "base/loop.h"
#include "base/qmp.h"
#include "migrate/blind.h"

#define COMMAND_MS        10000u
#define RESUME_EACH_MS    10u
#define RESUME_MS         10000u
#define RESUME_COMMAND_MS 2000u
#define COMMANDS_MAX      10
#define GOING_ON_MAJOR    10 /* this QEMU says `device` also where it does not wait before its switch */

/* Looks at a reply (lent) before the next command is sent; -1 ends the sequence. NULL: nothing to look at. */
typedef int (*check_fn)(struct guest *guest, json_t *result, struct err *err);

struct command {
    const char *name;
    json_t *arguments; /* taken when it is sent */
    check_fn check;
};

struct guest {
    uv_loop_t *loop;
    struct qmp *qmp;
    struct guest_events events;

    struct command commands[COMMANDS_MAX]; /* the sequence under way */
    size_t command_count, command_next;
    guest_fn fn;
    void *user;

    char *disks[GUEST_DISKS_MAX]; /* files of writable disks */
    size_t disk_count;
    bool reads_directly, frees_memory, emulated;
    int major;                                               /* QEMU's version */
    void (*ram_fn)(void *user, const struct guest_ram *ram); /* NULL: nobody asks */
    void *ram_user;

    pid_t vcpus[GUEST_VCPUS_MAX];
    size_t vcpu_count;

    struct loop_timer *resume_timer;
    uint64_t resume_by_ms;
    bool resuming;      /* replies to what was under way before do not count any more */
    struct err refusal; /* of the last `cont` while resuming; ERR_NONE: QEMU took it */
    bool gone;
};

static void guest_drop_sequence(struct guest *guest)
{
    for (size_t i = guest->command_next; i < guest->command_count; i++)
        json_decref(guest->commands[i].arguments);
    guest->command_count = guest->command_next = 0;
}

static void guest_end_sequence(struct guest *guest, const struct err *err)
{
    guest_fn fn = guest->fn;
    guest_drop_sequence(guest);
    guest->fn = NULL;
    if (fn)
        fn(guest->user, err);
}

static void guest_send_next(struct guest *guest);

static void guest_on_reply(void *user, const struct err *err, json_t *result)
{
    struct guest *guest = user;
    if (guest->resuming || (err && err->code == ERR_CANCELLED))
        return;
    struct err why;
    check_fn check = guest->command_next > 0 ? guest->commands[guest->command_next - 1].check : NULL;
    if (!err && check && check(guest, result, &why) < 0)
        err = &why;
    if (err || guest->command_next == guest->command_count)
        guest_end_sequence(guest, err);
    else
        guest_send_next(guest);
}

static void guest_send_next(struct guest *guest)
{
    struct command *command = &guest->commands[guest->command_next++];
    qmp_command(guest->qmp, command->name, command->arguments, COMMAND_MS, guest_on_reply, guest);
    command->arguments = NULL;
}

static void guest_run(struct guest *guest, const struct command *commands, size_t count, guest_fn fn, void *user)
{
    ENSURE(guest->fn == NULL && count <= COMMANDS_MAX && count > 0);
    memcpy(guest->commands, commands, count * sizeof *commands);
    guest->command_count = count;
    guest->command_next = 0;
    guest->fn = fn;
    guest->user = user;
    guest_send_next(guest);
}

static int check_devices(struct guest *guest, json_t *result, struct err *err)
{
    size_t i;
    json_t *device;
    json_array_foreach(result, i, device)
    {
        const char *type = jsonfield_text(device, "type");
        if (blind_check_device(jsonfield_text(device, "name"), type, err) < 0)
            return -1;
        guest->frees_memory = guest->frees_memory || strstr(type, "balloon");
    }
    return 0;
}

static int check_network(struct guest *guest, json_t *result, struct err *err)
{
    const char *text = json_string_value(result);
    (void)guest;
    return blind_check_network(text ? text : "", err);
}

/* Every node, because a driver may lie below a format or a filter. Requests to a host device may pass the page cache
 * by, whatever the node says (SCSI pass-through). */
static int check_nodes(struct guest *guest, json_t *result, struct err *err)
{
    size_t i;
    json_t *node;
    json_array_foreach(result, i, node)
    {
        const char *driver = jsonfield_text(node, "drv");
        if (blind_check_block(jsonfield_text(node, "node-name"), driver, err) < 0)
            return -1;
        guest->reads_directly = guest->reads_directly || strncmp(driver, "host_", 5) == 0 ||
                                json_is_true(json_object_get(json_object_get(node, "cache"), "direct"));
    }
    return 0;
}

static int check_disks(struct guest *guest, json_t *result, struct err *err)
{
    size_t i;
    json_t *block;
    (void)err;
    json_array_foreach(result, i, block)
    {
        json_t *inserted = json_object_get(block, "inserted");
        const char *file = jsonfield_text(inserted, "file");
        if (file[0] == '/' && !json_is_true(json_object_get(inserted, "ro")) && guest->disk_count < GUEST_DISKS_MAX)
            guest->disks[guest->disk_count++] = mem_strdup(file);
    }
    return 0;
}

static int check_running(struct guest *guest, json_t *result, struct err *err)
{
    (void)guest;
    const char *status = json_string_value(json_object_get(result, "status"));
    if (!status || strcmp(status, "running") != 0)
        return err_set(
            err, ERR_WRONG_STATE, "the guest is not running but %s", status ? status : "in an unknown state");
    return 0;
}

static json_t *capabilities(bool source, bool whole)
{
    json_t *list = json_pack("[{s:s, s:b}, {s:s, s:b}, {s:s, s:b}]", "capability", "events", "state", 1, "capability",
        "x-ignore-shared", "state", !whole, "capability", source ? "pause-before-switchover" : "late-block-activate",
        "state", 1);
    return json_pack("{s:o}", "capabilities", list);
}

static json_t *unix_uri(const char *path)
{
    char *uri = mem_printf("unix:%s", path);
    json_t *arguments = json_pack("{s:s}", "uri", uri);
    free(uri);
    return arguments;
}

static int check_version(struct guest *guest, json_t *result, struct err *err)
{
    (void)err;
    guest->major = (int)json_integer_value(json_object_get(json_object_get(result, "qemu"), "major"));
    return 0;
}

void guest_prepare_source(struct guest *guest, guest_fn fn, void *user)
{
    /* QEMU's own limits are lifted: we decide when to switch, and the state must not wait for a rate limiter. */
    const struct command commands[] = {
        {"query-status", NULL, check_running},
        {"query-version", NULL, check_version},
        {"qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), check_devices},
        {"qom-list", json_pack("{s:s}", "path", "/machine/peripheral-anon"), check_devices},
        {"human-monitor-command", json_pack("{s:s}", "command-line", "info network"), check_network},
        {"query-named-block-nodes", json_pack("{s:b}", "flat", 1), check_nodes},
        {"query-block", NULL, check_disks},
        {"migrate-set-capabilities", capabilities(true, false), NULL},
        {"migrate-set-parameters",
            json_pack("{s:I, s:I}", "max-bandwidth", (json_int_t)1 << 40, "downtime-limit", (json_int_t)2000000), NULL},
    };
    guest_run(guest, commands, sizeof commands / sizeof *commands, fn, user);
}

/* QEMU 7.2 loses writes of guests under TCG (12 of 12 moves of a guest that writes fast corrupted it; none with 10.0).
 */
static int check_sound(struct guest *guest, json_t *result, struct err *err)
{
    if (guest->major < 8 && !json_is_true(json_object_get(result, "enabled")))
        return err_set(err, ERR_UNSUPPORTED,
            "QEMU %d's own migration corrupts guests that run without KVM; use QEMU 10, or a kernel with write "
            "tracking",
            guest->major);
    return 0;
}

void guest_prepare_source_whole(struct guest *guest, uint64_t max_downtime_ms, guest_fn fn, void *user)
{
    const struct command commands[] = {
        {"query-status", NULL, check_running},
        {"query-version", NULL, check_version},
        {"query-kvm", NULL, check_sound},
        {"query-block", NULL, check_disks},
        {"migrate-set-capabilities", capabilities(true, true), NULL},
        {"migrate-set-parameters",
            json_pack(
                "{s:I, s:I}", "max-bandwidth", (json_int_t)1 << 40, "downtime-limit", (json_int_t)max_downtime_ms),
            NULL},
    };
    guest_run(guest, commands, sizeof commands / sizeof *commands, fn, user);
}

static void guest_on_ram(void *user, const struct err *err, json_t *result)
{
    struct guest *guest = user;
    void (*fn)(void *user, const struct guest_ram *ram) = guest->ram_fn;
    guest->ram_fn = NULL;
    if (!fn || (err && err->code == ERR_CANCELLED))
        return;
    const json_t *ram = json_object_get(result, "ram");
    struct guest_ram told = {
        .zero_pages = jsonfield_count(ram, "duplicate"),
        .pages = jsonfield_count(ram, "duplicate") + jsonfield_count(ram, "normal"),
        .remaining_bytes = jsonfield_count(ram, "remaining"),
        .dirty_pages_per_s = jsonfield_count(ram, "dirty-pages-rate"),
    };
    fn(guest->ram_user, ram ? &told : NULL);
}

void guest_query_ram(struct guest *guest, void (*fn)(void *user, const struct guest_ram *ram), void *user)
{
    bool asked = guest->ram_fn != NULL;
    guest->ram_fn = fn;
    guest->ram_user = user;
    if (!asked) /* else the answer that is on its way will do */
        qmp_command(guest->qmp, "query-migrate", NULL, COMMAND_MS, guest_on_ram, guest);
}

size_t guest_disks(const struct guest *guest, const char *const **out)
{
    *out = (const char *const *)guest->disks;
    return guest->disk_count;
}

bool guest_reads_directly(const struct guest *guest)
{
    return guest->reads_directly;
}

bool guest_frees_memory(const struct guest *guest)
{
    return guest->frees_memory;
}

/* QEMU begins every transaction by draining all disks, also one without actions (blockdev.c, qmp_transaction; seen to
 * wait for a request of 2 s, and to take 0.5 ms without one, on 10.0). Stopping the guest would drain them, too. */
void guest_drain(struct guest *guest, guest_fn fn, void *user)
{
    const struct command commands[] = {{"transaction", json_pack("{s:[]}", "actions"), NULL}};
    guest_run(guest, commands, 1, fn, user);
}

static int check_vcpus(struct guest *guest, json_t *result, struct err *err)
{
    size_t i;
    json_t *cpu;
    guest->vcpu_count = 0;
    if (json_array_size(result) == 0 || json_array_size(result) > GUEST_VCPUS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "a guest with %zu vCPUs cannot be slowed down; up to %d can",
            json_array_size(result), GUEST_VCPUS_MAX);
    json_array_foreach(result, i, cpu)
    {
        json_int_t thread = json_integer_value(json_object_get(cpu, "thread-id"));
        if (thread <= 1 || thread > INT32_MAX)
            return err_set(err, ERR_PROTOCOL, "QEMU does not say which thread vCPU %zu is", i);
        guest->vcpus[guest->vcpu_count++] = (pid_t)thread;
    }
    return 0;
}

void guest_find_vcpus(struct guest *guest, guest_fn fn, void *user)
{
    const struct command commands[] = {{"query-cpus-fast", NULL, check_vcpus}};
    guest_run(guest, commands, 1, fn, user);
}

size_t guest_vcpus(const struct guest *guest, const pid_t **out)
{
    *out = guest->vcpus;
    return guest->vcpu_count;
}

void guest_migrate(struct guest *guest, const char *path, bool wait, guest_fn fn, void *user)
{
    /* Before 10.0 it is the wait that tells when the disks are drained. */
    json_t *pause = json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "pause-before-switchover", "state",
        wait || guest->major < GOING_ON_MAJOR);
    const struct command commands[] = {{"migrate-set-capabilities", pause, NULL}, {"migrate", unix_uri(path), NULL}};
    guest_run(guest, commands, sizeof commands / sizeof *commands, fn, user);
}

bool guest_heard(const struct guest *guest)
{
    return !qmp_pending(guest->qmp);
}

void guest_switch(struct guest *guest, guest_fn fn, void *user)
{
    const struct command commands[] = {{"migrate-continue", json_pack("{s:s}", "state", "pre-switchover"), NULL}};
    guest_run(guest, commands, 1, fn, user);
}

static int check_emulated(struct guest *guest, json_t *result, struct err *err)
{
    (void)err;
    guest->emulated = json_is_false(json_object_get(result, "enabled"));
    return 0;
}

bool guest_emulated(const struct guest *guest)
{
    return guest->emulated;
}

void guest_prepare_destination(struct guest *guest, const char *path, bool whole, guest_fn fn, void *user)
{
    const struct command commands[] = {
        {"query-kvm", NULL, check_emulated},
        {"migrate-set-capabilities", capabilities(false, whole), NULL},
        {"migrate-incoming", unix_uri(path), NULL},
    };
    guest_run(guest, commands, 3, fn, user);
}

void guest_start(struct guest *guest, guest_fn fn, void *user)
{
    const struct command commands[] = {{"cont", NULL, NULL}};
    guest_run(guest, commands, 1, fn, user);
}

static int check_paused(struct guest *guest, json_t *result, struct err *err)
{
    const char *status = jsonfield_text(result, "status");
    (void)guest;
    return strcmp(status, "paused") == 0 ? 0 : err_set(err, ERR_WRONG_STATE, "the guest is not paused but %s", status);
}

void guest_look_paused(struct guest *guest, guest_fn fn, void *user)
{
    const struct command commands[] = {{"query-status", NULL, check_paused}};
    guest_run(guest, commands, 1, fn, user);
}

void guest_announce(struct guest *guest)
{
    json_t *often = json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 3, "step", 100);
    qmp_command(guest->qmp, "announce-self", often, COMMAND_MS, NULL, NULL);
}

/* Resuming: cancel, cont, look; again until the guest runs. Each step is harmless when repeated, and QEMU refuses
 * `cont` for the moment its own migration takes to wind down. */
static void guest_resume_looked(void *user, const struct err *err, json_t *result)
{
    struct guest *guest = user;
    const char *status = result ? json_string_value(json_object_get(result, "status")) : NULL;
    if (err && err->code == ERR_CANCELLED)
        return;
    if (!err && status && strcmp(status, "running") == 0) {
        guest_end_sequence(guest, NULL);
        return;
    }
    if (guest->gone || clock_now_ms() >= guest->resume_by_ms) {
        struct err why;
        err_set(&why, ERR_INTERNAL, "the guest could not be resumed; it is %s", status ? status : "not answering");
        if (guest->refusal.code != ERR_NONE)
            err_wrap(&why, "%.200s", guest->refusal.message);
        guest_end_sequence(guest, &why);
        return;
    }
    loop_timer_start(guest->resume_timer, RESUME_EACH_MS, 0);
}

static void guest_resume_told(void *user, const struct err *err, json_t *result)
{
    struct guest *guest = user;
    (void)result;
    if (!err || err->code != ERR_CANCELLED)
        guest->refusal = err ? *err : (struct err){0};
}

static void guest_resume_try(void *user)
{
    struct guest *guest = user;
    qmp_command(guest->qmp, "cont", NULL, RESUME_COMMAND_MS, guest_resume_told, guest);
    qmp_command(guest->qmp, "query-status", NULL, RESUME_COMMAND_MS, guest_resume_looked, guest);
}

void guest_resume(struct guest *guest, guest_fn fn, void *user)
{
    guest_drop_sequence(guest);
    guest->fn = fn;
    guest->user = user;
    guest->resuming = true;
    guest->resume_by_ms = clock_now_ms() + RESUME_MS;
    qmp_command(guest->qmp, "migrate_cancel", NULL, COMMAND_MS, NULL, NULL);
    guest_resume_try(guest);
}

static void guest_on_event(void *user, const char *event, json_t *data, uint64_t at_ns)
{
    struct guest *guest = user;
    const char *status = json_string_value(json_object_get(data, "status"));
    if (strcmp(event, "STOP") == 0 && guest->events.on_stopped)
        guest->events.on_stopped(guest->events.user, at_ns);
    else if (strcmp(event, "RESUME") == 0 && guest->events.on_resumed)
        guest->events.on_resumed(guest->events.user, at_ns);
    else if (strcmp(event, "MIGRATION_PASS") == 0 && guest->events.on_pass)
        guest->events.on_pass(guest->events.user, jsonfield_count(data, "pass"));
    else if (strcmp(event, "MIGRATION") == 0 && status)
        guest->events.on_migration(guest->events.user, status);
    else if (strncmp(event, "BLOCK_JOB_", 10) == 0 && guest->events.on_block_job)
        guest->events.on_block_job(guest->events.user, event, data);
}

static void guest_on_closed(void *user, const struct err *err)
{
    struct guest *guest = user;
    struct err why = *err;
    guest->gone = true;
    err_wrap(&why, "QEMU has ended");
    guest->events.on_gone(guest->events.user, &why);
}

int guest_open(
    uv_loop_t *loop, const char *qmp_path, const struct guest_events *events, struct err *err, struct guest **out)
{
    struct guest *guest = mem_zalloc(sizeof *guest);
    guest->loop = loop;
    guest->events = *events;
    struct qmp_options options = {.on_event = guest_on_event, .on_closed = guest_on_closed, .user = guest};
    if (qmp_open(loop, qmp_path, &options, err, &guest->qmp) < 0) {
        free(guest);
        return -1;
    }
    guest->resume_timer = loop_timer_new(loop, guest_resume_try, guest);
    *out = guest;
    return 0;
}

struct qmp *guest_qmp(struct guest *guest)
{
    return guest->qmp;
}

void guest_close(struct guest *guest)
{
    if (!guest)
        return;
    guest->fn = NULL;
    guest->ram_fn = NULL;
    qmp_close(guest->qmp);
    guest_drop_sequence(guest);
    loop_timer_free(guest->resume_timer);
    for (size_t i = 0; i < guest->disk_count; i++)
        free(guest->disks[i]);
    free(guest);
}
