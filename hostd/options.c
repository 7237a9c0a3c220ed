#include "hostd/options.h"

#include <inttypes.h>
#include <limits.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/address.h"
#include "base/buf.h"
#include "base/format.h"
#include "base/log.h"
#include "hostd/partition/paths.h"
#include "proto/limits.h"
#include "proto/trackers.h"

#ifndef DROVER_LIBDIR
#define DROVER_LIBDIR "/usr/local/lib"
#endif

#define KEY(name, type, field, ...)                                                                                    \
    {                                                                                                                  \
        name, type, offsetof(struct options, field), __VA_ARGS__                                                       \
    }

const struct config_key options_keys[] = {
    KEY("host.key", CONFIG_STRING, key, NULL, 0, 0, "this host's .key file (drover keygen makes one)"),
    KEY("host.directory", CONFIG_STRING, directory, "/run/drover", 0, 0,
        "state of the running partitions; on tmpfs, gone after a reboot like the partitions themselves"),
    KEY("host.memory_directory", CONFIG_STRING, memory_directory, "/dev/shm/drover", 0, 0,
        "the guests' RAM, one file each; must be on tmpfs. That "
        "bounds capacity.memory: by default it holds half of the "
        "machine's memory, more after mount -o remount,size=..."),
    KEY("host.migration_address", CONFIG_STRING, migration_address, NULL, 0, 0, "IP other hosts reach this one by"),
    KEY("host.shutdown_seconds", CONFIG_UINT, shutdown_seconds, "120", 0, 1500,
        "how long guests may take to shut down when the system goes down (drover-guests.service)"),
    KEY("controllers.controller", CONFIG_LIST, controllers, NULL, 0, 0,
        "a controller: its public key and API address, e.g. KEY tcp://10.0.0.1:7420; once for each"),
    KEY("capacity.cpu_cores", CONFIG_DOUBLE, cpu_cores, "0", 0, 0, "cores for guests; 0: all of the machine's"),
    KEY("capacity.memory", CONFIG_UINT, memory_bytes, "0", 0, 0,
        "memory for guests, e.g. 16G; 0: the machine's less one eighth. Never more than the file system of "
        "host.memory_directory holds"),
    KEY("capacity.disk_iops", CONFIG_DOUBLE, disk_iops, "0", 0, 0, "disk operations a second; 0: not limited"),
    KEY("migration.bandwidth", CONFIG_UINT, migration_bandwidth, "0", 0, LIMITS_BYTES_PER_S,
        "bytes a second that all migrations leaving this host may use together, and as much those entering it, e.g. "
        "100M; divided equally among those under way; 0: not limited"),
    KEY("migration.cpu_percent", CONFIG_UINT, migration_cpu_percent, "50", 1, 100,
        "share of the machine's CPU time that all migration engines of this host may use together, on average; 100: "
        "not limited. They never run on cores that a guest's virtual CPUs are pinned to, unless that is all of them"),
    KEY("network.bridge", CONFIG_STRING, bridge, "drover0", 0, 0,
        "default virtual switch: a Linux bridge, made when it is missing"),
    KEY("network.uplink", CONFIG_STRING, uplink, "", 0, 0, "interface put into the bridge; empty: none"),
    KEY("metrics.listen", CONFIG_STRING, metrics_listen, "", 0, 0, "IP:PORT of /metrics; empty: off"),
    KEY("hypervisor.qemu", CONFIG_STRING, qemu, "qemu-system-x86_64", 0, 0, "QEMU to run guests with, 7.2 or later"),
    KEY("hypervisor.accelerator", CONFIG_STRING, accelerator, "auto", 0, 0, "auto (probe), kvm or tcg"),
    KEY("hypervisor.qemu_img", CONFIG_STRING, qemu_img, "qemu-img", 0, 0, "program that makes disk images"),
    KEY("hypervisor.tracker", CONFIG_STRING, tracker, "auto", 0, 0,
        "how a guest's writes are tracked while it is moved away: auto (the best there is), wp-async (Linux 6.7), "
        "wp-sync (Linux 5.19) or qemu"),
    KEY("hypervisor.engine", CONFIG_STRING, engine, "", 0, 0, "path of drover-migrate; empty: beside this program"),
    KEY("hypervisor.shim", CONFIG_STRING, shim, "", 0, 0,
        "path of libdrover-shim.so; empty: ../lib beside this program, else where it is installed"),
    KEY("hypervisor.tcg_cache_mb", CONFIG_UINT, tcg_cache_mb, "64", 8, 4096,
        "translation cache of a guest under tcg, in MiB"),
    KEY("storage.directory", CONFIG_LIST, storage_directories, "", 0, 0,
        "a directory for the files of disks; once for each. Disks "
        "are moved only into these, and old ones removed only there"),
    KEY("reuse.max_bytes", CONFIG_UINT, reuse_bytes, "0", 0, 0,
        "disk space for what guests held when they left, so that less travels when they come back, e.g. 64G; 0: off. "
        "Sealed, with keys in host.directory"),
    KEY("reuse.directory", CONFIG_STRING, reuse_directory, "/var/lib/drover/visits", 0, 0, "where that is kept"),
    KEY("reuse.max_age_hours", CONFIG_UINT, reuse_hours, "24", 1, 8760, "and for how long"),
    KEY("log.level", CONFIG_STRING, log_level, "info", 0, 0, "error, warn, info or debug"),
    {NULL},
};

int options_controllers(const struct options *options, struct err *err, struct peerlist_entry *out, size_t *count)
{
    if (peerlist_parse(options->controllers, OPTIONS_CONTROLLERS_MAX, err, out, count) < 0)
        return err_wrap(err, "controllers.controller");
    return 0;
}

static void replace(char **field, char *text)
{
    free(*field);
    *field = text;
}

/* Fills in the programs that belong to the same build or installation as this one. */
static void find_programs(struct options *o)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n < 0 ? 0 : n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    if (!o->engine[0])
        replace(&o->engine, mem_printf("%s/drover-migrate", self));
    if (o->shim[0])
        return;
    replace(&o->shim, mem_printf("%s/../lib/libdrover-shim.so", self));
    if (access(o->shim, R_OK) < 0)
        replace(&o->shim, mem_strdup(DROVER_LIBDIR "/drover/libdrover-shim.so"));
}

static void find_capacity(struct options *o)
{
    o->machine_cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (o->cpu_cores <= 0)
        o->cpu_cores = o->machine_cores;
    o->memory_given = o->memory_bytes != 0;
    if (!o->memory_given) {
        uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
        o->memory_bytes = all - all / 8;
    }
}

void options_bound_memory(struct options *o, uint64_t directory_bytes)
{
    char set[FORMAT_MAX], held[FORMAT_MAX];
    if (o->memory_bytes <= directory_bytes)
        return;
    log_event(o->memory_given ? LOG_WARN : LOG_INFO, "capacity.bounded",
        "memory=%" PRIu64 " directory=%s reason=\"its file system holds %s, not %s: make it larger (mount -o "
        "remount,size=...) and start drover-hostd again\"",
        directory_bytes, o->memory_directory, format_bytes(directory_bytes, held), format_bytes(o->memory_bytes, set));
    o->memory_bytes = directory_bytes;
    o->memory_by_directory = true;
}

static int options_check(const struct options *o, struct err *err)
{
    struct address address;
    if (address_of_ip(o->migration_address, 0, err, &address) < 0)
        return err_wrap(err, "host.migration_address");
    if (o->directory[0] != '/' || strlen(o->directory) > PATHS_DIRECTORY_MAX)
        return err_set(err, ERR_INVALID,
            "host.directory '%.128s' must be absolute and at most %d bytes long (sockets are named below it)",
            o->directory, PATHS_DIRECTORY_MAX);
    if (o->reuse_directory[0] != '/' || strlen(o->reuse_directory) > OPTIONS_REUSE_MAX)
        return err_set(err, ERR_INVALID, "reuse.directory '%.128s' must be absolute and at most %d bytes long",
            o->reuse_directory, OPTIONS_REUSE_MAX);
    if (o->memory_directory[0] != '/')
        return err_set(err, ERR_INVALID, "host.memory_directory '%.128s' is not absolute", o->memory_directory);
    if (!o->bridge[0] || strlen(o->bridge) >= IF_NAMESIZE || strlen(o->uplink) >= IF_NAMESIZE)
        return err_set(
            err, ERR_INVALID, "network.bridge and network.uplink are names of 1 to %d bytes", IF_NAMESIZE - 1);
    if (strcmp(o->accelerator, "auto") != 0 && strcmp(o->accelerator, "kvm") != 0 && strcmp(o->accelerator, "tcg") != 0)
        return err_set(err, ERR_INVALID, "hypervisor.accelerator '%.32s' is not auto, kvm or tcg", o->accelerator);
    if (!trackers_known(o->tracker))
        return err_set(err, ERR_INVALID, "hypervisor.tracker '%.32s' is not " TRACKERS_NAMES, o->tracker);
    if (log_level_parse(o->log_level) < 0)
        return err_set(err, ERR_INVALID, "log.level '%.32s' is not error, warn, info or debug", o->log_level);
    if (o->cpu_cores < 0 || o->disk_iops < 0)
        return err_set(err, ERR_INVALID, "a capacity is negative");
    return 0;
}

int options_load(const char *path, struct err *err, struct options *out)
{
    struct options o = {0};
    if (config_load(path, options_keys, err, &o) < 0)
        return -1;
    struct peerlist_entry controllers[OPTIONS_CONTROLLERS_MAX];
    size_t count;
    if (options_check(&o, err) < 0 || options_controllers(&o, err, controllers, &count) < 0) {
        config_free(options_keys, &o);
        return err_wrap(err, "%s", path);
    }
    find_programs(&o);
    find_capacity(&o);
    *out = o;
    return 0;
}

void options_free(struct options *options)
{
    config_free(options_keys, options);
}
