#include "controller/api/validate.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "base/address.h"
#include "base/mac.h"
#include "controller/state/state.h"
#include "proto/limits.h"
#include "proto/trackers.h"

#define PATH_BYTES_MAX   1024
#define MIB              (1u << 20)
#define MEMORY_MIN       (16ull << 20)
#define MEMORY_MAX       (4ull << 40)
#define CPU_MODEL_MAX    200
#define MACHINE_TYPE_MAX 31
#define VCPUS_MAX        128

int validate_name(const char *what, const char *name, struct err *err)
{
    size_t len = strlen(name);
    if (len == 0)
        return err_set(err, ERR_INVALID, "%s: a name is needed", what);
    if (len >= STATE_NAME_MAX)
        return err_set(err, ERR_INVALID, "%s: the name '%.32s...' has %zu characters; up to %d are allowed", what, name,
            len, STATE_NAME_MAX - 1);
    for (const char *c = name; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || (*c == '-' && c != name))) {
            if (validate_text(what, name, STATE_NAME_MAX, err) < 0)
                return -1;
            return err_set(err, ERR_INVALID,
                "%s: the name '%s' may hold a-z, 0-9 and '-' only and must begin with a letter or digit", what, name);
        }
    return 0;
}

int validate_address(const char *address, struct err *err)
{
    struct address parsed;
    return address_parse(address, err, &parsed);
}

/* Length of the UTF-8 sequence at `s`; 0 when it is none (overlong forms and surrogates included). */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
    if (s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

int validate_text(const char *what, const char *text, size_t max, struct err *err)
{
    size_t len = strlen(text);
    if (len > max)
        return err_set(err, ERR_INVALID, "%s: %zu bytes are too many; up to %zu are allowed", what, len, max);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t step = utf8_length(s);
        if (step == 0)
            return err_set(err, ERR_INVALID, "%s: not valid UTF-8", what);
        if (*s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0))
            return err_set(err, ERR_INVALID, "%s: control characters are not allowed", what);
        s += step;
    }
    return 0;
}

static int validate_path(const char *what, const char *path, struct err *err)
{
    if (validate_text(what, path, PATH_BYTES_MAX, err) < 0)
        return -1;
    if (path[0] != '/')
        return err_set(err, ERR_INVALID, "%s: '%.200s' is not an absolute path", what, path);
    for (const char *part = path; part; part = strchr(part + 1, '/')) {
        size_t len = strcspn(part + 1, "/");
        if (len == 2 && strncmp(part + 1, "..", 2) == 0)
            return err_set(err, ERR_INVALID, "%s: '%.200s' must not have '..' in it", what, path);
    }
    return 0;
}

static int validate_mac(const char *mac, struct err *err)
{
    uint8_t bytes[MAC_BYTES];
    if (!mac_parse(mac, bytes))
        return err_set(err, ERR_INVALID,
            "NIC: '%.32s' is not the MAC address of one card, like 52:54:00:12:34:56; multicast is not", mac);
    return 0;
}

/* What becomes part of QEMU's command line as a word: nothing that could be more than a word. */
static int validate_word(const char *what, const char *text, size_t max, struct err *err)
{
    if (strlen(text) > max)
        return err_set(
            err, ERR_INVALID, "%s: '%.32s...' is too long; up to %zu characters are allowed", what, text, max);
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-_.,+=", *c)) {
            if (validate_text(what, text, max, err) < 0)
                return -1;
            return err_set(err, ERR_INVALID, "%s: '%s' may hold letters, digits and - _ . , + = only", what, text);
        }
    return 0;
}

static int validate_disks(const Drover__VmSpec *spec, struct err *err)
{
    if (spec->n_disks > VALIDATE_DISKS_MAX)
        return err_set(err, ERR_INVALID, "VM %s: %zu disks are too many; up to %d are allowed", spec->name,
            spec->n_disks, VALIDATE_DISKS_MAX);
    for (size_t i = 0; i < spec->n_disks; i++) {
        const Drover__Disk *disk = spec->disks[i];
        if (validate_path("disk", disk->path, err) < 0)
            return -1;
        if (disk->format[0] && strcmp(disk->format, "raw") != 0 && strcmp(disk->format, "qcow2") != 0)
            return err_set(
                err, ERR_INVALID, "disk %.200s: format '%.32s' is not raw or qcow2", disk->path, disk->format);
        bool direct = strcmp(disk->cache, "none") == 0;
        if (disk->cache[0] && !direct && strcmp(disk->cache, "writeback") != 0)
            return err_set(
                err, ERR_INVALID, "disk %.200s: cache '%.32s' is not writeback or none", disk->path, disk->cache);
        if (disk->aio[0] && strcmp(disk->aio, "threads") != 0 && strcmp(disk->aio, "native") != 0 &&
            strcmp(disk->aio, "io_uring") != 0)
            return err_set(
                err, ERR_INVALID, "disk %.200s: aio '%.32s' is not threads, native or io_uring", disk->path, disk->aio);
        if (disk->aio[0] && disk->aio[0] != 't' && !direct)
            return err_set(err, ERR_INVALID, "disk %.200s: aio %s needs cache none", disk->path, disk->aio);
        for (size_t k = 0; k < i; k++)
            if (strcmp(spec->disks[k]->path, disk->path) == 0)
                return err_set(err, ERR_INVALID, "disk %.200s is there twice", disk->path);
    }
    return 0;
}

static int validate_nics(const Drover__VmSpec *spec, struct err *err)
{
    if (spec->n_nics > VALIDATE_NICS_MAX)
        return err_set(err, ERR_INVALID, "VM %s: %zu NICs are too many; up to %d are allowed", spec->name, spec->n_nics,
            VALIDATE_NICS_MAX);
    for (size_t i = 0; i < spec->n_nics; i++) {
        if (spec->nics[i]->network[0] && validate_name("network", spec->nics[i]->network, err) < 0)
            return -1;
        if (spec->nics[i]->mac[0] && validate_mac(spec->nics[i]->mac, err) < 0)
            return -1;
    }
    return 0;
}

static int validate_boot(const Drover__VmSpec *spec, struct err *err)
{
    if (!spec->kernel[0] && spec->n_disks == 0)
        return err_set(err, ERR_INVALID, "VM %s has nothing to boot from; give it a disk or a kernel", spec->name);
    if (!spec->kernel[0] && (spec->initrd[0] || spec->cmdline[0]))
        return err_set(err, ERR_INVALID, "VM %s: an initrd or a command line needs a kernel", spec->name);
    if ((spec->kernel[0] && validate_path("kernel", spec->kernel, err) < 0) ||
        (spec->initrd[0] && validate_path("initrd", spec->initrd, err) < 0))
        return -1;
    return validate_text("kernel command line", spec->cmdline, VALIDATE_CMDLINE_MAX, err);
}

static int validate_downtime(uint32_t ms, struct err *err)
{
    if (ms > LIMITS_DOWNTIME_MS)
        return err_set(
            err, ERR_INVALID, "migration: a downtime of %u ms; up to %d are allowed", ms, LIMITS_DOWNTIME_MS);
    return 0;
}

static int validate_policy(Drover__MigrationMode mode, Drover__MigrationStuck stuck, struct err *err)
{
    if (mode > DROVER__MIGRATION_MODE__MIGRATION_MODE_POSTCOPY ||
        stuck > DROVER__MIGRATION_STUCK__MIGRATION_STUCK_THROTTLE)
        return err_set(err, ERR_INVALID, "migration: unknown mode, or unknown answer to a guest that writes too fast");
    return 0;
}

int validate_vm_set(const Drover__VmSetRequest *r, struct err *err)
{
    if (validate_downtime(r->max_downtime_ms, err) < 0 ||
        validate_policy(r->migration_mode, r->on_no_convergence, err) < 0)
        return err_wrap(err, "VM %s", r->name);
    if (!r->max_downtime_ms && !r->migration_mode && !r->on_no_convergence)
        return err_set(err, ERR_INVALID, "VM %s: nothing to change; `drover help vm set` shows what can be", r->name);
    return 0;
}

int validate_vm_spec(const Drover__VmSpec *spec, struct err *err)
{
    if (!spec)
        return err_set(err, ERR_INVALID, "VM: what it should be is missing");
    if (validate_name("VM", spec->name, err) < 0)
        return -1;
    if (spec->vcpus < 1 || spec->vcpus > VCPUS_MAX)
        return err_set(err, ERR_INVALID, "VM %s: %u vCPUs; 1 to %d are allowed", spec->name, spec->vcpus, VCPUS_MAX);
    if (spec->memory_bytes < MEMORY_MIN || spec->memory_bytes > MEMORY_MAX || spec->memory_bytes % MIB)
        return err_set(err, ERR_INVALID,
            "VM %s: %" PRIu64 " bytes of memory; whole MiB from 16 MiB to 4 TiB are allowed", spec->name,
            spec->memory_bytes);
    if (validate_downtime(spec->max_downtime_ms, err) < 0)
        return -1;
    if (validate_policy(spec->migration_mode, spec->on_no_convergence, err) < 0 || validate_disks(spec, err) < 0 ||
        validate_nics(spec, err) < 0 || validate_boot(spec, err) < 0)
        return -1;
    if (spec->machine_type[0] && strncmp(spec->machine_type, "pc-q35-", 7) != 0)
        return err_set(err, ERR_INVALID, "VM %s: machine type '%.64s' is not of the form pc-q35-7.2", spec->name,
            spec->machine_type);
    if (validate_word("machine type", spec->machine_type, MACHINE_TYPE_MAX, err) < 0)
        return -1;
    return validate_word("CPU model", spec->cpu_model, CPU_MODEL_MAX, err);
}

int validate_storage_move(const Drover__StorageMove *move, struct err *err)
{
    if (!move)
        return err_set(err, ERR_INVALID, "move-storage: what to move where is missing");
    if ((move->disk[0] && validate_path("disk", move->disk, err) < 0) || validate_path("target", move->target, err) < 0)
        return -1;
    if (move->format[0] && strcmp(move->format, "raw") != 0 && strcmp(move->format, "qcow2") != 0)
        return err_set(err, ERR_INVALID, "move-storage: format '%.32s' is neither raw nor qcow2", move->format);
    if (move->bandwidth_bytes_per_s && move->bandwidth_bytes_per_s < LIMITS_BANDWIDTH_MIN)
        return err_set(err, ERR_INVALID,
            "move-storage: a bandwidth of %" PRIu64 " bytes/s; at least 1 MiB/s, or 0 for no limit",
            move->bandwidth_bytes_per_s);
    return 0;
}

static int validate_tracker(const Drover__MigrationOptions *o, struct err *err)
{
    if (!trackers_known(o->tracker))
        return err_set(err, ERR_INVALID, "migration: tracker '%.32s' is not " TRACKERS_NAMES, o->tracker);
    if (strcmp(o->tracker, "qemu") == 0 && o->with_storage)
        return err_set(err, ERR_INVALID, "migration: with tracker qemu no disks can be taken along");
    if (strcmp(o->tracker, "qemu") == 0 && (o->mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID ||
                                               o->mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_POSTCOPY))
        return err_set(err, ERR_INVALID,
            "migration: with tracker qemu all of memory is sent before the switch; use "
            "mode precopy");
    return 0;
}

int validate_migration_options(const Drover__MigrationOptions *o, struct err *err)
{
    if (!o)
        return 0;
    if (validate_tracker(o, err) < 0)
        return -1;
    if (validate_downtime(o->max_downtime_ms, err) < 0)
        return -1;
    if (o->bandwidth_bytes_per_s && o->bandwidth_bytes_per_s < LIMITS_BANDWIDTH_MIN)
        return err_set(err, ERR_INVALID,
            "migration: a bandwidth of %" PRIu64 " bytes/s; at least 1 MiB/s, or 0 for no limit",
            o->bandwidth_bytes_per_s);
    if ((o->storage_directory[0] || o->keep_source) && !o->with_storage)
        return err_set(err, ERR_INVALID, "migration: where disks go and what becomes of them needs --with-storage");
    if (o->storage_directory[0] && validate_path("storage directory", o->storage_directory, err) < 0)
        return -1;
    if (o->max_rounds > 1000)
        return err_set(err, ERR_INVALID, "migration: %u rounds; up to 1000 are allowed", o->max_rounds);
    return validate_policy(o->mode, o->on_no_convergence, err);
}
