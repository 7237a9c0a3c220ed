#include "migrate/mirror.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crashpoint.h"
#include "base/jsonfield.h"

#define COMMAND_MS 30000u
#define QEMU_NAME  32

enum disk_state { DISK_WAITING, DISK_COPYING, DISK_READY, DISK_FINISHED };

struct mirror_disk {
    unsigned number;
    enum disk_state state;
    char node[64];        /* source: what its device reads from */
    char name[QEMU_NAME]; /* source: of the job and of the node that writes to the destination */
};

struct mirror {
    struct mirror_options options;
    char *path, *id;
    struct mirror_disk disks[MIRROR_DISKS_MAX];
    size_t count, next; /* the one that is being set up */
    size_t leftovers;   /* jobs of an engine that was killed, or that are called off, which have been told to end */
    void (*on_abandoned)(void *user);
    bool finishing, over;
};

static void mirror_fail(struct mirror *m, const struct err *err)
{
    if (m->over)
        return;
    m->over = true;
    m->options.on_failed(m->options.user, err);
}

/* True: go on. A connection that is being closed ends everything silently. */
static bool answered(struct mirror *m, const struct err *err)
{
    if (m->over || (err && err->code == ERR_CANCELLED))
        return false;
    if (err)
        mirror_fail(m, err);
    return err == NULL;
}

static void ask(struct mirror *m, const char *command, json_t *arguments, qmp_reply_fn fn)
{
    qmp_command(m->options.qmp, command, arguments, COMMAND_MS, fn, m);
}

int mirror_new(const struct mirror_options *options, struct err *err, struct mirror **out)
{
    struct mirror *m = mem_zalloc(sizeof *m);
    m->options = *options;
    m->path = mem_strdup(options->path);
    m->id = mem_strdup(options->id);
    *out = m;
    for (const char *text = options->numbers; *text;) {
        char *end;
        unsigned long number = strtoul(text, &end, 10);
        if (end == text || number >= MIRROR_DISKS_MAX || m->count == MIRROR_DISKS_MAX || (*end && *end != ','))
            break;
        m->disks[m->count++].number = (unsigned)number;
        text = end + (*end == ',');
        if (!*text && *end != ',')
            return 0;
    }
    mirror_free(m);
    *out = NULL;
    return err_set(err, ERR_INVALID, "'%.64s' are not numbers of disks", options->numbers);
}

void mirror_free(struct mirror *m)
{
    if (!m)
        return;
    free(m->path);
    free(m->id);
    free(m);
}

static json_t *socket_address(const struct mirror *m)
{
    return json_pack("{s:s, s:s}", "type", "unix", "path", m->path);
}

/* --- source --- */

static void disk_begin(struct mirror *m);

static void disk_begun(void *user, const struct err *err, json_t *result)
{
    struct mirror *m = user;
    (void)result;
    if (!answered(m, err))
        return;
    crashpoint("source", "mirror-begun");
    if (++m->next < m->count)
        disk_begin(m);
}

static void disk_connected(void *user, const struct err *err, json_t *result)
{
    struct mirror *m = user;
    struct mirror_disk *disk = &m->disks[m->next];
    (void)result;
    if (!answered(m, err))
        return;
    disk->state = DISK_COPYING;
    ask(m, "blockdev-mirror",
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "job-id", disk->name, "device", disk->node, "target",
            disk->name, "sync", "full", "copy-mode", "write-blocking", "on-source-error", "report", "on-target-error",
            "report", "speed", (json_int_t)((m->options.bytes_per_s + m->count - 1) / m->count)),
        disk_begun);
}

static void disk_begin(struct mirror *m)
{
    struct mirror_disk *disk = &m->disks[m->next];
    char export[QEMU_NAME];
    snprintf(export, sizeof export, "disk%u", disk->number);
    ask(m, "blockdev-add",
        json_pack("{s:s, s:s, s:s, s:o, s:s}", "driver", "nbd", "node-name", disk->name, "export", export, "server",
            socket_address(m), "discard", "unmap"),
        disk_connected);
}

static void devices_known(void *user, const struct err *err, json_t *devices)
{
    struct mirror *m = user;
    struct err why;
    if (!answered(m, err))
        return;
    for (size_t d = 0; d < m->count; d++) {
        char qdev[64];
        size_t i;
        json_t *device;
        snprintf(qdev, sizeof qdev, "/machine/peripheral/vdisk%u/", m->disks[d].number);
        snprintf(m->disks[d].name, sizeof m->disks[d].name, "send%u-%.16s", m->disks[d].number, m->id);
        json_array_foreach(devices, i, device)
        {
            if (strncmp(jsonfield_text(device, "qdev"), qdev, strlen(qdev)) == 0)
                snprintf(m->disks[d].node, sizeof m->disks[d].node, "%s",
                    jsonfield_text(json_object_get(device, "inserted"), "node-name"));
        }
        if (!m->disks[d].node[0]) {
            err_set(&why, ERR_NOT_FOUND, "QEMU has no disk %u", m->disks[d].number);
            mirror_fail(m, &why);
            return;
        }
    }
    disk_begin(m);
}

/* What an engine that was killed may have left open. */
static void nodes_known(void *user, const struct err *err, json_t *nodes)
{
    struct mirror *m = user;
    size_t i;
    json_t *node;
    if (!answered(m, err))
        return;
    json_array_foreach(nodes, i, node)
    {
        const char *name = jsonfield_text(node, "node-name");
        if (strncmp(name, "send", 4) == 0 && strcmp(jsonfield_text(node, "drv"), "nbd") == 0)
            qmp_command(m->options.qmp, "blockdev-del", json_pack("{s:s}", "node-name", name), COMMAND_MS, NULL, NULL);
    }
    ask(m, "query-block", NULL, devices_known);
}

static void look_at_nodes(struct mirror *m)
{
    ask(m, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), nodes_known);
}

/* A job of ours that is there before we have begun any is of an engine that was killed. Its disk can only be copied
 * once it has ended, which an event tells: it is still to come, because the job was still listed. */
static void jobs_known(void *user, const struct err *err, json_t *jobs)
{
    struct mirror *m = user;
    size_t i;
    json_t *job;
    if (!answered(m, err))
        return;
    json_array_foreach(jobs, i, job)
    {
        const char *name = jsonfield_text(job, "device");
        if (strncmp(name, "send", 4) != 0)
            continue;
        m->leftovers++;
        qmp_command(m->options.qmp, "block-job-cancel", json_pack("{s:s, s:b}", "device", name, "force", 1), COMMAND_MS,
            NULL, NULL);
    }
    if (m->leftovers == 0)
        look_at_nodes(m);
}

static void leftover_ended(struct mirror *m)
{
    if (--m->leftovers == 0)
        look_at_nodes(m);
}

void mirror_start(struct mirror *m)
{
    ask(m, "query-block-jobs", NULL, jobs_known);
}

static bool all_in(const struct mirror *m, enum disk_state state)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->disks[i].state != state)
            return false;
    return true;
}

void mirror_on_job(struct mirror *m, const char *event, json_t *data)
{
    struct err err;
    struct mirror_disk *disk = NULL;
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(jsonfield_text(data, "device"), m->disks[i].name) == 0)
            disk = &m->disks[i];
    bool ended = strcmp(event, "BLOCK_JOB_COMPLETED") == 0 || strcmp(event, "BLOCK_JOB_CANCELLED") == 0;
    if (!disk && !m->over && m->leftovers && ended && strncmp(jsonfield_text(data, "device"), "send", 4) == 0)
        leftover_ended(m);
    if (!disk || m->over)
        return;
    const char *error = jsonfield_text(data, "error");
    if (strcmp(event, "BLOCK_JOB_READY") == 0) {
        disk->state = DISK_READY;
        if (all_in(m, DISK_READY))
            m->options.on_ready(m->options.user);
    } else if (strcmp(event, "BLOCK_JOB_COMPLETED") == 0 && !error[0] && disk->state == DISK_READY && m->finishing) {
        disk->state = DISK_FINISHED;
        if (all_in(m, DISK_FINISHED)) {
            m->over = true;
            m->options.on_finished(m->options.user);
        }
    } else if (ended) {
        err_set(&err, ERR_UNAVAILABLE, "disk %u is not copied any more: %s", disk->number,
            error[0] ? error : "the copying was called off");
        mirror_fail(m, &err);
    }
}

void mirror_limit(struct mirror *m, uint64_t bytes_per_s)
{
    m->options.bytes_per_s = bytes_per_s;
    for (size_t i = 0; i < m->count; i++)
        if (!m->over && m->disks[i].state == DISK_COPYING)
            qmp_command(m->options.qmp, "block-job-set-speed",
                json_pack("{s:s, s:I}", "device", m->disks[i].name, "speed",
                    (json_int_t)((bytes_per_s + m->count - 1) / m->count)),
                COMMAND_MS, NULL, NULL);
}

static void finish_asked(void *user, const struct err *err, json_t *result)
{
    (void)result;
    answered(user, err);
}

/* A mirror that is ready and told to stop ends with both files equal. */
void mirror_finish(struct mirror *m)
{
    m->finishing = true;
    for (size_t i = 0; i < m->count; i++)
        ask(m, "block-job-cancel", json_pack("{s:s}", "device", m->disks[i].name), finish_asked);
}

bool mirror_copies(const struct mirror *m)
{
    return !m->over;
}

static void abandoned(void *user, const struct err *err, json_t *result)
{
    struct mirror *m = user;
    (void)result;
    if (--m->leftovers == 0 && (!err || err->code != ERR_CANCELLED))
        m->on_abandoned(m->options.user);
}

void mirror_abandon(struct mirror *m, void (*fn)(void *user))
{
    m->over = true;
    m->on_abandoned = fn;
    m->leftovers = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (m->disks[i].state != DISK_COPYING && m->disks[i].state != DISK_READY)
            continue;
        if (m->leftovers++ == 0)
            qmp_command(m->options.qmp, "stop", NULL, COMMAND_MS, NULL, NULL);
        qmp_command(m->options.qmp, "block-job-cancel", json_pack("{s:s, s:b}", "device", m->disks[i].name, "force", 1),
            COMMAND_MS, abandoned, m);
    }
    if (m->leftovers == 0)
        fn(m->options.user);
}

/* --- destination --- */

static void export_next(struct mirror *m);

static void exported(void *user, const struct err *err, json_t *result)
{
    struct mirror *m = user;
    (void)result;
    if (!answered(m, err))
        return;
    if (m->next < m->count)
        export_next(m);
    else
        m->options.on_exported(m->options.user);
}

static void export_next(struct mirror *m)
{
    char name[QEMU_NAME];
    snprintf(name, sizeof name, "disk%u", m->disks[m->next++].number);
    ask(m, "block-export-add",
        json_pack(
            "{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", name, "node-name", name, "name", name, "writable", 1),
        exported);
}

void mirror_export(struct mirror *m)
{
    char *path = m->path;
    ask(m, "nbd-server-start", json_pack("{s:{s:s, s:{s:s}}}", "addr", "type", "unix", "data", "path", path), exported);
}

void mirror_unexport(struct mirror *m, qmp_reply_fn fn, void *user)
{
    qmp_command(m->options.qmp, "nbd-server-stop", NULL, COMMAND_MS, fn, user);
}
