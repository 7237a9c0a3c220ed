/* MIGRATE_CHECK: what only this host can see of a VM that is to come or to go. Changes nothing. Files are looked at by
 * a thread of the loop's pool, because storage that hangs must not hang hostd; the rest is asked at once. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <utlist.h>

#include "base/buf.h"
#include "hostd/look.h"
#include "hostd/partition/private.h"

#define FILES_MAX (SPEC_DISKS_MAX + 2)

/* One request on its way; freed with its answer. */
struct check {
    uv_work_t work;
    struct wire_request *request;
    Drover__VmSpec *spec;   /* owned */
    char *memory_directory; /* owned */
    struct look files[FILES_MAX];
    uint64_t memory_free_bytes, ram_free_bytes, ram_promised_bytes;
    uint64_t ram_yield_bytes; /* of ram not free: kept of guests that left, and given up for one that comes */
    Drover__CheckedSwitch switches[SPEC_NICS_MAX];
    char problems[SPEC_NICS_MAX][128];
    char bridge[IF_NAMESIZE];
};

/* The files of a spec in one row: its disks, kernel, initrd. */
static const char *file_path(const Drover__VmSpec *spec, size_t i)
{
    return i < spec->n_disks ? spec->disks[i]->path : i == spec->n_disks ? spec->kernel : spec->initrd;
}

static size_t file_count(const Drover__VmSpec *spec)
{
    return spec->n_disks + (spec->kernel[0] != '\0') + (spec->initrd[0] != '\0');
}

static void look_at_files(uv_work_t *work)
{
    struct check *check = work->data;
    const Drover__VmSpec *spec = check->spec;
    struct statvfs fs;
    for (size_t i = 0; i < file_count(spec); i++)
        look_at(file_path(spec, i), i < spec->n_disks && !spec->disks[i]->read_only, &check->files[i]);
    if (statvfs(check->memory_directory, &fs) == 0)
        check->ram_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
}

static void file_write_report(const struct look *look, const char *path, Drover__CheckedFile *out)
{
    drover__checked_file__init(out);
    out->path = (char *)(uintptr_t)path;
    out->problem = (char *)(uintptr_t)look->problem;
    out->format = (char *)(uintptr_t)look->format;
    out->inode = look->inode;
    out->locked = look->locked;
    out->bytes = look->bytes;
    out->born_ms = look->born_ms;
    out->device = (char *)(uintptr_t)look->device;
}

static void looked(uv_work_t *work, int status)
{
    struct check *check = work->data;
    const Drover__VmSpec *spec = check->spec;
    Drover__CheckedFile files[FILES_MAX], *file_list[FILES_MAX];
    Drover__CheckedSwitch *switch_list[SPEC_NICS_MAX];
    Drover__MigrateCheckReply reply = DROVER__MIGRATE_CHECK_REPLY__INIT;
    (void)status; /* nobody cancels it */
    for (size_t i = 0; i < file_count(spec); i++) {
        file_list[i] = &files[i];
        file_write_report(&check->files[i], file_path(spec, i), &files[i]);
    }
    for (size_t i = 0; i < spec->n_nics; i++)
        switch_list[i] = &check->switches[i];
    reply.disks = file_list;
    reply.n_disks = spec->n_disks;
    reply.boot_files = file_list + spec->n_disks;
    reply.n_boot_files = file_count(spec) - spec->n_disks;
    reply.switches = switch_list;
    reply.n_switches = spec->n_nics;
    reply.memory_free_bytes = check->memory_free_bytes;
    reply.ram_free_bytes = check->ram_free_bytes + check->ram_yield_bytes;
    reply.ram_promised_bytes = check->ram_promised_bytes;
    wire_reply(check->request, &reply.base);
    drover__vm_spec__free_unpacked(check->spec, NULL);
    free(check->memory_directory);
    free(check);
}

static void look_at_switches(const struct partitions_env *env, struct check *check)
{
    for (size_t i = 0; i < check->spec->n_nics; i++) {
        struct err err;
        Drover__CheckedSwitch *out = &check->switches[i];
        const char *network = check->spec->nics[i]->network;
        drover__checked_switch__init(out);
        out->network = check->spec->nics[i]->network;
        out->bridge = network[0] ? check->spec->nics[i]->network : check->bridge;
        if (net_switch_mtu(env->net, network, &err, &out->mtu) < 0) {
            snprintf(check->problems[i], sizeof check->problems[i], "%.127s", err.message);
            out->problem = check->problems[i];
        }
    }
}

static void look_at_memory(struct partitions *ps, struct check *check)
{
    check->ram_promised_bytes = partitions_ram_promised(ps);
    check->ram_yield_bytes = visits_memory_bytes(ps->env.visits);
    check->memory_free_bytes = partitions_memory_free(ps) + check->ram_yield_bytes;
}

void migrate_check(struct partitions *ps, const Drover__MigrateCheckRequest *m, struct wire_request *request)
{
    struct err err;
    if (!m->spec)
        err_set(&err, ERR_INVALID, "spec is missing");
    if (!m->spec || spec_check(m->spec, &err) < 0) {
        wire_reply_error(request, &err);
        return;
    }
    struct check *check = mem_zalloc(sizeof *check);
    check->request = request;
    check->work.data = check;
    check->spec = spec_copy(m->spec);
    check->memory_directory = mem_strdup(ps->env.options->memory_directory);
    snprintf(check->bridge, sizeof check->bridge, "%s", net_bridge(ps->env.net));
    look_at_switches(&ps->env, check);
    look_at_memory(ps, check);
    if (uv_queue_work(ps->env.loop, &check->work, look_at_files, looked) != 0)
        looked(&check->work, UV_EAGAIN);
}
