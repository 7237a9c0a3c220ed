/* mirror: copies the guest's disks to the other host while the guest writes, by QEMU's own mirror over NBD.
 *
 *   destination: mirror_export -> QEMU offers the disks at a UNIX socket .............. mirror_unexport
 *   source:            mirror_start -> on_ready: both are equal, and kept so -> mirror_finish -> on_finished
 *                            '-- on_failed
 *
 * mirror_finish() belongs into the moment when QEMU waits before its switch: the guest stands still, so what is equal
 * stays equal, and the destination may be told to take its offer back before QEMU's state goes out (else the migration
 * is lost). While disks are copied the guest's writes go to both (write-blocking), so it cannot outrun the copying; on
 * failure QEMU goes on with the source's files alone. A disk is named by its number in the VM's definition, which is in
 * its device's id (vdiskN) on both hosts. */
#ifndef MIGRATE_MIRROR_H
#define MIGRATE_MIRROR_H

#include <jansson.h>
#include <stdint.h>

#include "base/qmp.h"

#define MIRROR_DISKS_MAX 32

struct mirror;

struct mirror_options {
    struct qmp *qmp;
    const char *numbers;             /* "0,2": of the disks */
    const char *path;                /* UNIX socket: where QEMU offers them, or where the relay listens */
    uint64_t bytes_per_s;            /* source: copy no faster; 0: not limited */
    const char *id;                  /* of the migration; becomes part of names within QEMU */
    void (*on_ready)(void *user);    /* source */
    void (*on_finished)(void *user); /* source, after mirror_finish() */
    void (*on_exported)(void *user); /* destination */
    void (*on_failed)(void *user, const struct err *err); /* at most once; nothing comes after it */
    void *user;
};

/* ERR_INVALID: `numbers` makes no sense. Strings are copied. Take: mirror_free(). */
MUST_CHECK int mirror_new(const struct mirror_options *options, struct err *err, struct mirror **out);
/* The connection to QEMU must be closed by then, or nothing be under way. NULL is fine. */
void mirror_free(struct mirror *mirror);

void mirror_start(struct mirror *mirror);
/* Hand it every event of QEMU's block jobs. */
void mirror_on_job(struct mirror *mirror, const char *event, json_t *data);
/* Source: from here on copies at most so fast, all disks together; 0: not limited. */
void mirror_limit(struct mirror *mirror, uint64_t bytes_per_s);
void mirror_finish(struct mirror *mirror);
/* Source: it has neither finished nor failed. */
bool mirror_copies(const struct mirror *mirror);
/* Calls the copying off; `fn` once QEMU has heard of it, which may be at once. The guest stands still from then on.
 *
 * A mirror of QEMU that ends while a write of the guest is on its way to the target frees what that write goes on to
 * use (10.0: mirror_run() frees its bitmaps before it drains; seen as a broken heap in one of 20 such ends under many
 * writes, never in 200 with the guest stopped first). So the guest is stopped, which waits for its writes: the target
 * must answer until `fn` (relay_answer_alone()), or be closed, which leaves that risk. */
void mirror_abandon(struct mirror *mirror, void (*fn)(void *user));

void mirror_export(struct mirror *mirror);
/* `fn`: QEMU's answer. */
void mirror_unexport(struct mirror *mirror, qmp_reply_fn fn, void *user);

#endif
