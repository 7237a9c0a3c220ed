#include "hostd/engine.h"

#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "base/file.h"
#include "base/jsonline.h"
#include "base/log.h"
#include "base/loop.h"
#include "hostd/partition/paths.h"
#include "proto/limits.h"

#define CONNECT_RETRY_MS 20 /* until the engine has made its socket, moments after it starts */
#define CONFIG_BYTES_MAX (64u << 10)
#define SWITCH_US_MAX    UINT64_C(60000000) /* the engine takes no more */
#define RECORD_BYTES_MAX 4096
#define LOG_LINE_MAX     1024

struct engine {
    uv_loop_t *loop;
    struct engine_events events;
    struct child *child;
    struct jsonline *control;
    struct loop_timer *retry;
    struct report report;
    char directory[PATH_MAX];
    bool cancel;  /* asked for; sent as soon as it can be */
    bool limited; /* `quota` is to be told to whoever listens */
    struct engine_quota quota;
    bool dead;
    int status; /* wait(2)'s; -1 when it was not our child, or not seen */
};

static uint32_t downtime_of(const struct engine_config *c)
{
    if (c->options && c->options->max_downtime_ms)
        return c->options->max_downtime_ms;
    return c->spec->max_downtime_ms ? c->spec->max_downtime_ms : LIMITS_DOWNTIME_DEFAULT_MS;
}

static const char *mode_of(const Drover__MigrationOptions *o)
{
    switch (o->mode) {
    case DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO:
        return "auto";
    case DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID:
        return "hybrid";
    case DROVER__MIGRATION_MODE__MIGRATION_MODE_POSTCOPY:
        return "postcopy";
    default: /* checked when it was asked for */
        return "precopy";
    }
}

static const char *stuck_of(const Drover__MigrationOptions *o)
{
    switch (o->on_no_convergence) {
    case DROVER__MIGRATION_STUCK__MIGRATION_STUCK_CANCEL:
        return "cancel";
    case DROVER__MIGRATION_STUCK__MIGRATION_STUCK_POSTCOPY:
        return "postcopy";
    case DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE:
        return "throttle";
    default:
        return o->mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO ? "postcopy" : "cancel";
    }
}

char *engine_config_format(const struct engine_config *c)
{
    static const Drover__MigrationOptions none = DROVER__MIGRATION_OPTIONS__INIT;
    const Drover__MigrationOptions *o = c->options ? c->options : &none;
    char path[PATH_MAX];
    struct buf text = {0};
    buf_printf(&text, "[migration]\nid = %s\n", c->migration_id);
    buf_printf(&text, "[key]\nfile = %s\npeer = %s\n", c->key_file, c->peer_key);
    buf_printf(&text, "[control]\nsocket = %s\n", paths_file(c->directory, PATH_ENGINE_CONTROL, path));
    buf_printf(&text, "[record]\nfile = %s\n", paths_file(c->directory, PATH_ENGINE_RECORD, path));
    buf_printf(&text, "[qemu]\nqmp = %s\npid = %d\nram_file = %s\nram_bytes = %" PRIu64 "\n",
        paths_file(c->directory, PATH_QMP_ENGINE, path), (int)c->guest.pid, c->ram_path, c->spec->memory_bytes);
    buf_printf(&text, "[channel]\n%s = %s\n", c->role == ENGINE_DESTINATION ? "listen" : "connect", c->address);
    buf_printf(&text, "[limits]\nmax_downtime_ms = %" PRIu32 "\nbandwidth = %" PRIu64 "\n", downtime_of(c),
        o->bandwidth_bytes_per_s);
    buf_printf(&text, "share = %" PRIu64 "\ncpu = %" PRIu64 "\n", c->quota.bytes_per_s, c->quota.millicores);
    if (c->cores)
        buf_printf(&text, "cores = %s\n", c->cores);
    if (o->max_rounds)
        buf_printf(&text, "max_rounds = %" PRIu32 "\n", o->max_rounds);
    buf_printf(&text, "[policy]\nmode = %s\non_no_convergence = %s\n", mode_of(o), stuck_of(o));
    if (c->log_level)
        buf_printf(&text, "[log]\nlevel = %s\n", c->log_level);
    buf_printf(&text, "[tracker]\nkind = %s\n", o->tracker[0] ? o->tracker : "auto");
    if (c->way)
        buf_printf(&text,
            "[forecast]\nlast_wire = %" PRIu64 "\nlast_raw = %" PRIu64 "\nlast_pace = %" PRIu64
            "\nlast_switch_us = %" PRIu64 "\n",
            c->way->wire_bytes_per_s, c->way->raw_bytes_per_s, c->way->pace_bytes_per_s,
            c->way->switch_us < SWITCH_US_MAX ? c->way->switch_us : SWITCH_US_MAX);
    for (size_t i = 0, n = 0; c->disks && i < c->spec->n_disks; i++)
        if (!c->spec->disks[i]->read_only)
            buf_printf(&text, n++ ? ",%zu" : "[storage]\ndisks = %zu", i);
    buf_printf(&text, "\n[verify]\nenabled = %s\n", o->verify ? "true" : "false");
    if (c->image)
        buf_printf(&text, "[reuse]\nimage = %s\nkey_file = %s\n", c->image, c->image_key);
    if (c->spec->n_nics > 0)
        buf_printf(&text, "[announce]\naddresses = %s\n", paths_file(c->directory, PATH_ADDRESSES, path));
    if (c->role == ENGINE_DESTINATION && c->spec->n_nics > 0) {
        buf_printf(&text, "interface = %s\n", c->announce_interface);
        for (size_t i = 0; i < c->spec->n_nics; i++)
            buf_printf(&text, "mac = %s\nport = %s\n", c->spec->nics[i]->mac, c->taps[i]);
    }
    buf_append(&text, "", 1);
    return (char *)text.data;
}

/* What it said last, where nobody was there yet to be told: its log has it. */
static void last_words(struct engine *engine, char why[static ERR_MESSAGE_MAX])
{
    char path[PATH_MAX], line[LOG_LINE_MAX];
    child_last_line(paths_file(engine->directory, PATH_ENGINE_LOG, path), sizeof line, line);
    engine->report.failed = !engine->report.done && report_last_words(line, &engine->report.failure);
    snprintf(why, ERR_MESSAGE_MAX, "%.*s", ERR_MESSAGE_MAX - 1,
        engine->report.failed ? engine->report.failure.message : line);
}

/* Dead and everything read: nothing more will come. */
static void engine_check_end(struct engine *engine)
{
    char why[ERR_MESSAGE_MAX];
    if (!engine->dead || engine->control)
        return;
    if (engine->report.failed)
        snprintf(why, sizeof why, "%s", engine->report.failure.message);
    else if (engine->status > 0 && engine->status & 0x7f)
        snprintf(why, sizeof why, "the migration engine was ended by signal %d", engine->status & 0x7f);
    else
        last_words(engine, why);
    engine->events.on_ended(engine->events.user, why);
}

static void engine_exited(void *user, int status)
{
    struct engine *engine = user;
    engine->status = status; /* how far it came is said by the record file, and to a restarted hostd too */
    engine->dead = true;
    if (status > 0 && status & 0x7f)
        log_event(LOG_WARN, "engine.killed", "pid=%d signal=%d", (int)child_id(engine->child).pid, status & 0x7f);
    loop_timer_stop(engine->retry);
    engine_check_end(engine);
}

static void control_message(void *user, json_t *message)
{
    struct engine *engine = user;
    enum report_change change = report_apply(&engine->report, message);
    if (change != REPORT_NOTHING)
        engine->events.on_change(engine->events.user, change);
}

static void control_closed(void *user, const struct err *err)
{
    struct engine *engine = user;
    (void)err;
    jsonline_close(engine->control);
    engine->control = NULL;
    if (!engine->dead)
        loop_timer_start(engine->retry, CONNECT_RETRY_MS, 0);
    engine_check_end(engine);
}

static void send_cancel(struct engine *engine)
{
    jsonline_send(engine->control, json_pack("{s:s}", "command", "cancel"));
}

static void send_quota(struct engine *engine)
{
    jsonline_send(engine->control,
        json_pack("{s:s, s:I}", "command", "bandwidth", "bytes_per_s", (json_int_t)engine->quota.bytes_per_s));
    jsonline_send(
        engine->control, json_pack("{s:s, s:I}", "command", "cpu", "millicores", (json_int_t)engine->quota.millicores));
}

static void control_connect(void *user)
{
    struct engine *engine = user;
    char path[PATH_MAX];
    struct jsonline_options options = {.on_message = control_message, .on_closed = control_closed, .user = engine};
    paths_file(engine->directory, PATH_ENGINE_CONTROL, path);
    if (jsonline_connect(engine->loop, path, &options, NULL, &engine->control) < 0) {
        engine->control = NULL;
        loop_timer_start(engine->retry, CONNECT_RETRY_MS, 0);
        return;
    }
    if (engine->limited)
        send_quota(engine);
    if (engine->cancel)
        send_cancel(engine);
}

static struct engine *engine_make(uv_loop_t *loop, const char *directory, const struct engine_events *events)
{
    struct engine *engine = mem_zalloc(sizeof *engine);
    engine->loop = loop;
    engine->events = *events;
    ENSURE(strlen(directory) < sizeof engine->directory);
    strcpy(engine->directory, directory);
    engine->retry = loop_timer_new(loop, control_connect, engine);
    engine->status = -1;
    return engine;
}

static int engine_spawn(uv_loop_t *loop, const struct engine_config *config, const struct engine_events *events,
    struct err *err, struct engine **out)
{
    char config_path[PATH_MAX], log_path[PATH_MAX];
    paths_file(config->directory, PATH_ENGINE_CONFIG, config_path);
    struct engine *engine = engine_make(loop, config->directory, events);
    static const char *const roles[] = {
        [ENGINE_SOURCE] = "source", [ENGINE_DESTINATION] = "destination", [ENGINE_FORECAST] = "forecast"};
    char *argv[] = {(char *)(uintptr_t)config->program, (char *)(uintptr_t)roles[config->role], (char[]){"--config"},
        config_path, NULL};
    struct child_options child = {
        .argv = argv,
        .log_path = paths_file(config->directory, PATH_ENGINE_LOG, log_path),
        .cgroup_fds = config->cgroup_fds,
        .cgroup_count = config->cgroup_count,
        .mortal = config->role == ENGINE_FORECAST,
    };
    if (child_fork(loop, &child, engine_exited, engine, err, &engine->child) < 0 ||
        events->on_created(events->user, child_id(engine->child), err) < 0 || child_release(engine->child, err) < 0) {
        engine_free(engine);
        return err_wrap(err, "migration engine");
    }
    loop_timer_start(engine->retry, CONNECT_RETRY_MS, 0);
    *out = engine;
    return 0;
}

int engine_start(uv_loop_t *loop, const struct engine_config *config, const struct engine_events *events,
    struct err *err, struct engine **out)
{
    char config_path[PATH_MAX];
    engine_remove_files(config->directory);
    cleanup_free char *text = engine_config_format(config);
    paths_file(config->directory, PATH_ENGINE_CONFIG, config_path);
    if (file_write(config_path, text, strlen(text), 0600, err) < 0)
        return -1;
    return engine_spawn(loop, config, events, err, out);
}

int engine_resume(uv_loop_t *loop, const struct engine_config *config, const struct engine_events *events,
    struct err *err, struct engine **out)
{
    static const char resume[] = "[policy]\nresume = true\n";
    char path[PATH_MAX];
    cleanup_buf struct buf text = {0};
    if (config->role != ENGINE_SOURCE || engine_record(config->directory, config->migration_id) != RECORD_SENDING)
        return err_set(err, ERR_WRONG_STATE, "no pages of the guest are to be sent");
    paths_file(config->directory, PATH_ENGINE_CONFIG, path);
    if (file_read(path, CONFIG_BYTES_MAX, err, &text) < 0)
        return -1;
    if (!strstr(buf_str(&text), resume)) {
        buf_append(&text, resume, strlen(resume));
        if (file_write(path, text.data, text.len, 0600, err) < 0)
            return -1;
    }
    unlink(paths_file(config->directory, PATH_ENGINE_CONTROL, path));
    return engine_spawn(loop, config, events, err, out);
}

int engine_let_go(uv_loop_t *loop, const struct engine_config *config, child_exit_fn fn, void *user, struct err *err,
    struct child **out)
{
    char config_path[PATH_MAX], log_path[PATH_MAX];
    paths_file(config->directory, PATH_ENGINE_CONFIG, config_path);
    const char *verb = config->role == ENGINE_DESTINATION ? "give-back" : "release";
    char *argv[] = {
        (char *)(uintptr_t)config->program, (char *)(uintptr_t)verb, (char[]){"--config"}, config_path, NULL};
    struct child_options options = {
        .argv = argv,
        .log_path = paths_file(config->directory, PATH_ENGINE_LOG, log_path),
    };
    struct child *child;
    if (child_fork(loop, &options, fn, user, err, &child) < 0)
        return -1;
    if (child_release(child, err) < 0) {
        child_free(child);
        return -1;
    }
    *out = child;
    return 0;
}

int engine_adopt(uv_loop_t *loop, const char *directory, struct process_id id, const struct engine_events *events,
    struct err *err, struct engine **out)
{
    struct engine *engine = engine_make(loop, directory, events);
    if (child_adopt(loop, id, engine_exited, engine, err, &engine->child) < 0) {
        engine_free(engine);
        return -1;
    }
    control_connect(engine);
    *out = engine;
    return 0;
}

const struct report *engine_report(const struct engine *engine)
{
    return &engine->report;
}

bool engine_in_order(const struct engine *engine)
{
    return engine->status >= 0 && !(engine->status & 0x7f);
}

void engine_take_report(struct engine *engine, struct report *out)
{
    *out = engine->report;
    engine->report = (struct report){0};
}

void engine_set_quota(struct engine *engine, const struct engine_quota *quota)
{
    bool changed = !engine->limited || engine->quota.bytes_per_s != quota->bytes_per_s ||
                   engine->quota.millicores != quota->millicores;
    engine->quota = *quota;
    engine->limited = true;
    if (changed && engine->control)
        send_quota(engine);
}

void engine_cancel(struct engine *engine)
{
    engine->cancel = true;
    if (engine->control)
        send_cancel(engine);
}

void engine_kill(struct engine *engine)
{
    child_signal(engine->child, SIGKILL);
}

struct process_id engine_process(const struct engine *engine)
{
    return child_id(engine->child);
}

void engine_abandon(struct engine *engine)
{
    if (!engine)
        return;
    child_abandon(engine->child);
    engine->child = NULL;
    engine_free(engine);
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    jsonline_close(engine->control);
    child_free(engine->child);
    loop_timer_free(engine->retry);
    report_clear(&engine->report);
    free(engine);
}

enum record_phase engine_record(const char *directory, const char *migration_id)
{
    char path[PATH_MAX];
    cleanup_buf struct buf text = {0};
    struct err err;
    if (file_read(paths_file(directory, PATH_ENGINE_RECORD, path), RECORD_BYTES_MAX, &err, &text) < 0)
        return err.code == ERR_NOT_FOUND ? RECORD_NONE : RECORD_UNREADABLE;
    return record_phase_parse(buf_str(&text), text.len, migration_id);
}

bool engine_has_files(const char *directory)
{
    char path[PATH_MAX];
    return access(paths_file(directory, PATH_ENGINE_CONFIG, path), F_OK) == 0;
}

void engine_remove_files(const char *directory)
{
    static const enum path_file files[] = {PATH_ENGINE_CONFIG, PATH_ENGINE_CONTROL, PATH_ENGINE_STATE,
        PATH_ENGINE_DISKS, PATH_ENGINE_RECORD, PATH_ENGINE_PREPARED, PATH_ENGINE_LOG};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[PATH_MAX];
        unlink(paths_file(directory, files[i], path));
    }
}
