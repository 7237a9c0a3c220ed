/* The checks that go by what the hosts saw when they looked for the VM: memory, files, networks. */
#include <string.h>

#include "base/format.h"
#include "controller/placement/preflight_check.h"

static void check_memory(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    uint64_t need = in->spec->memory_bytes, room = in->room_bytes;
    const Drover__MigrateCheckReply *check = in->to.check;
    char a[FORMAT_MAX], b[FORMAT_MAX];
    if (check && (!in->room_known || check->memory_free_bytes < room))
        room = check->memory_free_bytes;
    if ((check || in->room_known) && need > room) {
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "host %s", in->to.name);
        preflight_say(&f->cause, "has %s of memory left for guests, VM %s needs %s", format_bytes(room, a), in->vm,
            format_bytes(need, b));
        preflight_say(&f->next_step, "choose another host, or move something off it first");
    }
}

static void check_ram_files(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__MigrateCheckReply *check = in->to.check;
    char a[FORMAT_MAX], b[FORMAT_MAX];
    if (!check || !check->ram_free_bytes)
        return;
    uint64_t need = in->spec->memory_bytes, free_bytes = check->ram_free_bytes;
    uint64_t sure = free_bytes > check->ram_promised_bytes ? free_bytes - check->ram_promised_bytes : 0;
    if (need <= sure)
        return;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "host %s", in->to.name);
    preflight_say(&f->cause,
        "has %s on the tmpfs of its guests' memory (host.memory_directory) that no guest was promised, VM %s needs %s",
        format_bytes(sure, a), in->vm, format_bytes(need, b));
    preflight_say(&f->next_step, "make that tmpfs larger (mount -o remount,size=...), or choose another host");
}

static void check_boot_files(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < in->to.check->n_boot_files && i < 2; i++) {
        const Drover__CheckedFile *file = in->to.check->boot_files[i];
        if (!file->problem[0])
            continue;
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "%.500s", file->path);
        preflight_say(&f->cause, "cannot be used on host %s: %.200s", in->to.name, file->problem);
        preflight_say(&f->next_step, "put the kernel and initrd where every host reaches them");
    }
}

/* What the target has looked at, as far as it answers what it was asked. */
static size_t disk_count(const struct preflight_input *in)
{
    size_t seen = in->to.check->n_disks;
    return seen < in->spec->n_disks ? seen : in->spec->n_disks;
}

/* What the source sees of the same disk; NULL: not known. By path, because disks that are copied along are not asked
 * about on the target. */
static const Drover__CheckedFile *source_disk(const struct preflight_input *in, const char *path)
{
    const Drover__MigrateCheckReply *check = in->from.check;
    for (size_t i = 0; check && i < check->n_disks; i++)
        if (strcmp(check->disks[i]->path, path) == 0)
            return check->disks[i];
    return NULL;
}

static bool device_differs(const char *a, const char *b)
{
    size_t kind = strcspn(a, ":") + 1;
    return a[0] && b[0] && strncmp(a, b, kind) == 0 && strcmp(a, b) != 0;
}

/* How both hosts see that one path means two files; NULL: they do not. Numbers of inodes alone do not tell: those of
 * the first files are alike on all file systems of a kind. */
static const char *another_file(const Drover__CheckedFile *a, const Drover__CheckedFile *b)
{
    if (a->inode && b->inode && a->inode != b->inode)
        return "of another inode";
    if (a->born_ms && b->born_ms && a->born_ms != b->born_ms)
        return "made at another time";
    if (a->bytes && b->bytes && a->bytes != b->bytes)
        return "of another size";
    return device_differs(a->device, b->device) ? "on another device" : NULL;
}

static void check_disk_there(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < disk_count(in); i++) {
        const Drover__CheckedFile *disk = in->to.check->disks[i], *from = source_disk(in, disk->path);
        const char *how = from ? another_file(from, disk) : NULL;
        if (disk->problem[0]) {
            Drover__Finding *f = preflight_refuse(run);
            preflight_say(&f->thing, "disk %.500s", disk->path);
            preflight_say(&f->cause, "cannot be used on host %s: %.200s", in->to.name, disk->problem);
            preflight_say(
                &f->next_step, "mount the storage there that host %s has it on, with the same rights", in->from.name);
        } else if (how) {
            Drover__Finding *f = preflight_refuse(run);
            preflight_say(&f->thing, "disk %.500s", disk->path);
            preflight_say(
                &f->cause, "is another file on host %s (%s) than on host %s", in->to.name, how, in->from.name);
            preflight_say(&f->next_step, "mount the same storage on both, or take the disks along (--with-storage)");
        }
    }
}

static void check_disk_format(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < disk_count(in); i++) {
        const Drover__CheckedFile *disk = in->to.check->disks[i];
        const char *format = in->spec->disks[i]->format;
        /* A raw disk may hold anything, also what looks like another format: that is the guest's business. */
        if (disk->problem[0] || strcmp(format, "qcow2") != 0 || strcmp(disk->format, "qcow2") == 0)
            continue;
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "disk %.500s", disk->path);
        preflight_say(&f->cause, "is no qcow2 image as host %s sees it", in->to.name);
        preflight_say(&f->next_step, "look whether the right storage is mounted there");
    }
}

/* A file that the guest's own QEMU holds locked, and that nobody holds as the target sees it, is another file, or on
 * storage that keeps locks to itself. Which of both cannot be seen, and the one costs the guest its data. */
static void lock_of_file(struct preflight_run *run, const char *path)
{
    const struct preflight_input *in = run->in;
    Drover__Finding *f = preflight_refuse(run);
    preflight_say(&f->thing, "disk %.500s", path);
    preflight_say(&f->cause,
        "is locked on host %s, and host %s does not see it: it may be another file there, and nothing would keep two "
        "hosts from writing one",
        in->from.name, in->to.name);
    preflight_say(&f->next_step, "take the disks along (--with-storage), or use storage "
                                 "that passes file locks on (NFS 4, a cluster file system)");
}

/* Locks on a device are never seen elsewhere, so they tell nothing of it. */
static void lock_of_device(struct preflight_run *run, const char *path)
{
    const struct preflight_input *in = run->in;
    Drover__Finding *f = preflight_warn(run);
    preflight_say(&f->thing, "disk %.500s", path);
    preflight_say(
        &f->cause, "may be another device on host %s than on host %s: neither can tell", in->to.name, in->from.name);
    preflight_say(&f->next_step, "make sure that it is the same");
}

static void check_disk_lock(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < disk_count(in); i++) {
        const Drover__CheckedFile *disk = in->to.check->disks[i], *from = source_disk(in, disk->path);
        if (disk->problem[0] || !from || !from->locked || disk->locked || another_file(from, disk))
            continue;
        if (from->inode)
            lock_of_file(run, disk->path);
        else if (!from->device[0] || strcmp(from->device, disk->device) != 0)
            lock_of_device(run, disk->path);
    }
}

static void check_network(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    for (size_t i = 0; in->to.check && i < in->to.check->n_switches && i < in->spec->n_nics; i++) {
        const Drover__CheckedSwitch *at = in->to.check->switches[i];
        if (!at->problem[0])
            continue;
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "network %.64s", at->network[0] ? at->network : "default");
        preflight_say(&f->cause, "is not on host %s: %.200s", in->to.name, at->problem);
        preflight_say(&f->next_step, "make the bridge there, in the same network as on host %s", in->from.name);
    }
}

static void check_mtu(struct preflight_run *run)
{
    const struct preflight_input *in = run->in;
    const Drover__MigrateCheckReply *from = in->from.check, *to = in->to.check;
    for (size_t i = 0; from && to && i < from->n_switches && i < to->n_switches && i < in->spec->n_nics; i++) {
        const Drover__CheckedSwitch *a = from->switches[i], *b = to->switches[i];
        if (b->problem[0] || !a->mtu || b->mtu >= a->mtu)
            continue;
        Drover__Finding *f = preflight_refuse(run);
        preflight_say(&f->thing, "network %.64s", a->network[0] ? a->network : "default");
        preflight_say(&f->cause,
            "carries packets of %u bytes on host %s and of %u on host %s: larger ones would be lost", a->mtu,
            in->from.name, b->mtu, in->to.name);
        preflight_say(
            &f->next_step, "set the MTU of bridge %.16s on host %s to at least %u", b->bridge, in->to.name, a->mtu);
    }
}

const struct preflight_check preflight_looks[] = {
    {"memory", check_memory, ERR_CAPACITY},
    {"ram-files", check_ram_files, ERR_CAPACITY},
    {"boot-files", check_boot_files, ERR_NOT_FOUND},
    {"disk", check_disk_there, ERR_NOT_FOUND},
    {"disk-format", check_disk_format, ERR_UNSUPPORTED},
    {"disk-lock", check_disk_lock, ERR_UNSUPPORTED},
    {"network", check_network, ERR_NOT_FOUND},
    {"mtu", check_mtu, ERR_UNSUPPORTED},
    {0},
};
