/* Whether one more guest fits in: beside what is promised of capacity.memory, and of the file system of the RAM files.
 * Those grow as guests touch their memory, and where that file system is full a guest does not get an error but dies of
 * SIGBUS: so what guests may still come to use counts as used. Nothing is set aside in the file system itself: that
 * would take the time to clear it all, and memory that a guest gives back (free page reporting) would be gone from it
 * again. What others put into it, it cannot be kept from. */
#include "hostd/partition/room.h"

#include <limits.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <utlist.h>

#include "base/format.h"
#include "hostd/partition/private.h"

int room_check(const struct room *room, uint64_t need, struct err *err)
{
    char a[FORMAT_MAX], b[FORMAT_MAX];
    if (need > room->memory_bytes && room->by_directory)
        return err_set(err, ERR_CAPACITY,
            "%s of memory are needed, and %s are free for guests on this host, whose host.memory_directory holds less "
            "than it might offer: make that file system larger (mount -o remount,size=...) and start drover-hostd "
            "again, or choose another host",
            format_bytes(need, a), format_bytes(room->memory_bytes, b));
    if (need > room->memory_bytes)
        return err_set(err, ERR_CAPACITY, "%s of memory are needed, and %s are free for guests on this host",
            format_bytes(need, a), format_bytes(room->memory_bytes, b));
    uint64_t sure =
        room->ram_free_bytes > room->ram_promised_bytes ? room->ram_free_bytes - room->ram_promised_bytes : 0;
    if (need > sure)
        return err_set(err, ERR_CAPACITY,
            "%s of memory are needed, and the file system of this host's host.memory_directory has %s that no guest "
            "was promised; make it larger (mount -o remount,size=...), or choose another host",
            format_bytes(need, a), format_bytes(sure, b));
    return 0;
}

uint64_t room_directory_bytes(const char *directory)
{
    struct statvfs fs;
    if (statvfs(directory, &fs) < 0 || fs.f_blocks == 0)
        return UINT64_MAX;
    return (uint64_t)fs.f_blocks * fs.f_frsize;
}

/* A tmpfs without a limit has no blocks at all. */
static uint64_t directory_free(const char *directory)
{
    struct statvfs fs;
    if (statvfs(directory, &fs) < 0 || fs.f_blocks == 0)
        return UINT64_MAX;
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

uint64_t partitions_memory_free(const struct partitions *ps)
{
    uint64_t used = visits_memory_bytes(ps->env.visits), capacity = ps->env.options->memory_bytes;
    const struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        if (state_has_guest(p->record.state))
            used += p->record.spec->memory_bytes;
    }
    return used < capacity ? capacity - used : 0;
}

uint64_t partitions_ram_promised(const struct partitions *ps)
{
    uint64_t promised = 0;
    const struct partition *p;
    DL_FOREACH(ps->list, p)
    {
        char path[PATH_MAX];
        struct stat st;
        uint64_t memory = p->record.spec->memory_bytes, used = 0;
        if (!state_has_guest(p->record.state))
            continue;
        if (stat(paths_ram(ps->env.options->memory_directory, p->record.vm_id, path), &st) == 0)
            used = (uint64_t)st.st_blocks * 512;
        promised += used < memory ? memory - used : 0;
    }
    return promised;
}

int partition_room(struct partitions *ps, const Drover__VmSpec *spec, struct err *err)
{
    const struct options *options = ps->env.options;
    uint64_t kept = visits_memory_bytes(ps->env.visits), free_bytes = directory_free(options->memory_directory);
    uint64_t promised = partitions_ram_promised(ps);
    do {
        /* What is given up is free as soon as its keeper is dead, which takes moments. */
        uint64_t given_up = kept - visits_memory_bytes(ps->env.visits);
        const struct room room = {
            .memory_bytes = partitions_memory_free(ps),
            .by_directory = options->memory_by_directory,
            .ram_free_bytes = free_bytes > UINT64_MAX - given_up ? UINT64_MAX : free_bytes + given_up,
            .ram_promised_bytes = promised,
        };
        if (room_check(&room, spec->memory_bytes, err) == 0)
            return 0;
    } while (visits_yield(ps->env.visits)); /* a hint keeps no guest out */
    return -1;
}
