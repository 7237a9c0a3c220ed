/* Copies a disk of a running guest into a new file while the guest writes, and changes the guest over to it.
 *
 *   disk_copy_start -> makes the file -> copies -> the guest stands still for moments: on_switched -> on_ended(NULL)
 *          '-- any failure, or disk_copy_cancel() before the change-over: the guest uses its old file: on_ended(why)
 *
 * Until on_switched the old file is the whole truth. At on_switched the guest stands still, and the new file holds
 * everything it ever wrote, on stable storage: the moment to write down which of the two is the disk. Only then does
 * the guest run on, with the new file. Both files are equal in between, so that a crash at any point leaves what was
 * written down valid.
 *
 * QEMU copies by itself: it may be left alone (disk_copy_free()) and taken up again by a later hostd (`adopt`),
 * whatever has become of it. When QEMU ends, the owner frees the copy and nothing more is told. Callbacks come from the
 * loop. */
#ifndef HOSTD_DISK_COPY_H
#define HOSTD_DISK_COPY_H

#include "hostd/hypervisor/hypervisor.h"

struct disk_copy;

struct disk_copy_config {
    const char *id;                 /* of the move; becomes part of names within QEMU */
    size_t disk;                    /* number of the disk in the VM's definition */
    const char *source;             /* the file it is in */
    const char *target;             /* the new file's name after the change-over; before, it is place_partial() */
    const char *format;             /* raw or qcow2 */
    const char *cache, *aio;        /* of the definition's disk */
    bool shallow;                   /* qcow2: go on reading from the old file's backing file */
    uint64_t bandwidth_bytes_per_s; /* 0: not limited */
    const char *qemu_img;
    bool adopt;    /* begun by an earlier hostd */
    bool switched; /* and on_switched had been written down */
};

struct disk_copy_events {
    /* -1: it was not written down (`err` says why); asked again after a moment, the guest still standing. */
    int (*on_switched)(void *user, struct err *err);
    /* NULL: the guest runs with the new file, the old one is closed. Else it runs with the old one, the new is closed.
     */
    void (*on_ended)(void *user, const struct err *err);
    void *user;
};

/* One at a time for a guest, which must have become ready. Everything is copied. Take: disk_copy_free(). */
struct disk_copy *disk_copy_start(
    uv_loop_t *loop, struct guest *guest, const struct disk_copy_config *config, const struct disk_copy_events *events);
/* Stops it if the change-over has not begun; on_ended says which way it went. */
void disk_copy_cancel(struct disk_copy *copy);
void disk_copy_progress(const struct disk_copy *copy, uint64_t *done_bytes, uint64_t *total_bytes);
/* How long the guest stood still; 0: it has not. */
uint64_t disk_copy_pause_us(const struct disk_copy *copy);
/* Stops watching; QEMU goes on by itself. After on_ended, or after guest_free(), which calls off what is under way.
 * NULL is fine. */
void disk_copy_free(struct disk_copy *copy);

#endif
