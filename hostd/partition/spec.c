#include "hostd/partition/spec.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "base/ensure.h"
#include "base/mac.h"
#include "proto/bounded.h"

static bool name_ok(const char *name, const char *more, size_t max)
{
    size_t len = strlen(name);
    if (len == 0 || len > max || !isalnum((unsigned char)name[0]))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr(more, name[i]))
            return false;
    return true;
}

/* Protobuf does not see to it that a string is UTF-8, and control characters have no business in QEMU's command line.
 */
static bool text_ok(const char *text, size_t max)
{
    if (strlen(text) > max)
        return false;
    for (const char *p = text; *p; p++)
        if (iscntrl((unsigned char)*p))
            return false;
    json_t *json = json_string(text);
    json_decref(json);
    return json != NULL;
}

static bool path_ok(const char *path)
{
    return path[0] == '/' && text_ok(path, 1024);
}

static int disk_check(const Drover__Disk *disk, struct err *err)
{
    if (!path_ok(disk->path))
        return err_set(err, ERR_INVALID, "disk '%.200s' is not an absolute path of at most 1024 bytes", disk->path);
    if (disk->format[0] && strcmp(disk->format, "raw") != 0 && strcmp(disk->format, "qcow2") != 0)
        return err_set(err, ERR_INVALID, "disk %s: format '%.32s' is neither raw nor qcow2", disk->path, disk->format);
    bool direct = strcmp(disk->cache, "none") == 0;
    if (disk->cache[0] && !direct && strcmp(disk->cache, "writeback") != 0)
        return err_set(
            err, ERR_INVALID, "disk %s: cache '%.32s' is neither writeback nor none", disk->path, disk->cache);
    if (disk->aio[0] && strcmp(disk->aio, "threads") != 0 &&
        (!direct || (strcmp(disk->aio, "native") != 0 && strcmp(disk->aio, "io_uring") != 0)))
        return err_set(err, ERR_INVALID, "disk %s: aio '%.32s' is not threads or, with cache none, native or io_uring",
            disk->path, disk->aio);
    return 0;
}

static int nic_check(const Drover__Nic *nic, struct err *err)
{
    uint8_t mac[MAC_BYTES];
    if (!mac_parse(nic->mac, mac))
        return err_set(err, ERR_INVALID, "network card: '%.32s' is not a unicast MAC address", nic->mac);
    if (nic->network[0] && !name_ok(nic->network, "-_.", 15))
        return err_set(err, ERR_INVALID, "network card: '%.32s' is not the name of a virtual switch", nic->network);
    return 0;
}

static int boot_check(const Drover__VmSpec *spec, struct err *err)
{
    if (spec->kernel[0] && !path_ok(spec->kernel))
        return err_set(err, ERR_INVALID, "kernel '%.200s' is not an absolute path", spec->kernel);
    if (spec->initrd[0] && !path_ok(spec->initrd))
        return err_set(err, ERR_INVALID, "initrd '%.200s' is not an absolute path", spec->initrd);
    if (!spec->kernel[0] && (spec->initrd[0] || spec->cmdline[0]))
        return err_set(err, ERR_INVALID, "initrd and cmdline need a kernel");
    if (!text_ok(spec->cmdline, 2000))
        return err_set(err, ERR_INVALID, "kernel command line is not text of at most 2000 bytes");
    if (spec->cpu_model[0] && !name_ok(spec->cpu_model, "-_.,+=", 200))
        return err_set(err, ERR_INVALID, "cpu model '%.64s' is not one of QEMU's", spec->cpu_model);
    if (spec->machine_type[0] &&
        (strncmp(spec->machine_type, "pc-q35-", 7) != 0 || !name_ok(spec->machine_type, "-.", 31)))
        return err_set(err, ERR_INVALID, "machine type '%.64s' is not of the form pc-q35-7.2", spec->machine_type);
    return 0;
}

int spec_check(const Drover__VmSpec *spec, struct err *err)
{
    if (!name_ok(spec->name, "-_.", 63))
        return err_set(err, ERR_INVALID, "'%.64s' is not the name of a VM", spec->name);
    if (spec->vcpus < 1 || spec->vcpus > SPEC_VCPUS_MAX)
        return err_set(err, ERR_INVALID, "%" PRIu32 " vcpus: 1 to %d are possible", spec->vcpus, SPEC_VCPUS_MAX);
    if (spec->memory_bytes < SPEC_MEMORY_MIN || spec->memory_bytes > SPEC_MEMORY_MAX || spec->memory_bytes % (1 << 20))
        return err_set(err, ERR_INVALID, "memory of %" PRIu64 " bytes: whole MiB from 16 MiB to 16 TiB are possible",
            spec->memory_bytes);
    if (spec->n_disks > SPEC_DISKS_MAX || spec->n_nics > SPEC_NICS_MAX)
        return err_set(
            err, ERR_INVALID, "at most %d disks and %d network cards are possible", SPEC_DISKS_MAX, SPEC_NICS_MAX);
    for (size_t i = 0; i < spec->n_disks; i++)
        if (disk_check(spec->disks[i], err) < 0)
            return -1;
    for (size_t i = 0; i < spec->n_nics; i++)
        if (nic_check(spec->nics[i], err) < 0)
            return -1;
    return boot_check(spec, err);
}

Drover__VmSpec *spec_copy(const Drover__VmSpec *spec)
{
    return bounded_copy(spec);
}

void spec_put_disk(Drover__VmSpec *spec, size_t i, const Drover__Disk *disk)
{
    Drover__Disk *copy = bounded_copy(disk);
    ENSURE(i < spec->n_disks);
    drover__disk__free_unpacked(spec->disks[i], NULL);
    spec->disks[i] = copy;
}

json_t *spec_to_json(const Drover__VmSpec *spec)
{
    json_t *disks = json_array(), *nics = json_array();
    for (size_t i = 0; i < spec->n_disks; i++) {
        const Drover__Disk *d = spec->disks[i];
        json_array_append_new(disks, json_pack("{s:s, s:s, s:b, s:s, s:s}", "path", d->path, "format", d->format,
                                         "read_only", d->read_only, "cache", d->cache, "aio", d->aio));
    }
    for (size_t i = 0; i < spec->n_nics; i++)
        json_array_append_new(
            nics, json_pack("{s:s, s:s}", "network", spec->nics[i]->network, "mac", spec->nics[i]->mac));
    json_t *json = json_pack("{s:s, s:I, s:I, s:o, s:o, s:s, s:s, s:s, s:s, s:I, s:s, s:b}", "name", spec->name,
        "vcpus", (json_int_t)spec->vcpus, "memory_bytes", (json_int_t)spec->memory_bytes, "disks", disks, "nics", nics,
        "kernel", spec->kernel, "initrd", spec->initrd, "cmdline", spec->cmdline, "cpu_model", spec->cpu_model,
        "max_downtime_ms", (json_int_t)spec->max_downtime_ms, "machine_type", spec->machine_type, "balloon",
        spec->balloon);
    ENSURE(json != NULL); /* strings from protobuf are UTF-8 or were refused by spec_check() */
    return json;
}

/* Builds the message over memory lent by `json`, checks it, and copies it. */
int spec_from_json(const json_t *json, struct err *err, Drover__VmSpec **out)
{
    Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
    Drover__Disk disks[SPEC_DISKS_MAX], *disk_list[SPEC_DISKS_MAX];
    Drover__Nic nics[SPEC_NICS_MAX], *nic_list[SPEC_NICS_MAX];
    json_t *disk_array, *nic_array, *item;
    json_int_t vcpus, memory, downtime;
    int balloon = 0;
    json_error_t why;
    if (json_unpack_ex((json_t *)json, &why, 0, "{s:s, s:I, s:I, s:o, s:o, s:s, s:s, s:s, s:s, s:I, s?s, s?b}", "name",
            &spec.name, "vcpus", &vcpus, "memory_bytes", &memory, "disks", &disk_array, "nics", &nic_array, "kernel",
            &spec.kernel, "initrd", &spec.initrd, "cmdline", &spec.cmdline, "cpu_model", &spec.cpu_model,
            "max_downtime_ms", &downtime, "machine_type", &spec.machine_type, "balloon", &balloon) < 0)
        return err_set(err, ERR_INVALID, "spec: %s", why.text);
    if (json_array_size(disk_array) > SPEC_DISKS_MAX || json_array_size(nic_array) > SPEC_NICS_MAX || vcpus < 0 ||
        vcpus > UINT32_MAX || memory < 0 || downtime < 0 || downtime > UINT32_MAX)
        return err_set(err, ERR_INVALID, "spec: a value is out of range");
    spec.vcpus = (uint32_t)vcpus;
    spec.memory_bytes = (uint64_t)memory;
    spec.max_downtime_ms = (uint32_t)downtime;
    spec.balloon = balloon != 0;
    size_t i;
    json_array_foreach(disk_array, i, item)
    {
        int read_only;
        disks[i] = (Drover__Disk)DROVER__DISK__INIT;
        if (json_unpack_ex(item, &why, 0, "{s:s, s:s, s:b, s?s, s?s}", "path", &disks[i].path, "format",
                &disks[i].format, "read_only", &read_only, "cache", &disks[i].cache, "aio", &disks[i].aio) < 0)
            return err_set(err, ERR_INVALID, "spec: disk %zu: %s", i, why.text);
        disks[i].read_only = read_only != 0;
        disk_list[spec.n_disks++] = &disks[i];
    }
    json_array_foreach(nic_array, i, item)
    {
        nics[i] = (Drover__Nic)DROVER__NIC__INIT;
        if (json_unpack_ex(item, &why, 0, "{s:s, s:s}", "network", &nics[i].network, "mac", &nics[i].mac) < 0)
            return err_set(err, ERR_INVALID, "spec: network card %zu: %s", i, why.text);
        nic_list[spec.n_nics++] = &nics[i];
    }
    spec.disks = disk_list;
    spec.nics = nic_list;
    if (spec_check(&spec, err) < 0)
        return err_wrap(err, "spec");
    *out = spec_copy(&spec);
    return 0;
}
