/* What QEMU's answers say of a disk that is being copied: the looking half of disk_copy.c. Pure.
 *
 * A look is one answer after the other to the queries of copy_looks[], from copy_look_begin() on; then `view` is whole,
 * and copy_step() may be asked. */
#ifndef HOSTD_HYPERVISOR_QEMU_COPY_LOOK_H
#define HOSTD_HYPERVISOR_QEMU_COPY_LOOK_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "hostd/hypervisor/qemu/copy_step.h"

#define COPY_NODE_MAX 64

/* How things are called within QEMU. */
struct copy_names {
    size_t disk;            /* number of the disk in the VM's definition */
    char node[32], job[32]; /* of the new file; of the copying */
    char device[64];        /* what the path of the guest's device begins with */
};

struct copy_look {
    struct copy_view view;
    char job_error[256];              /* why the job ended; empty: it has not failed */
    uint64_t done_bytes, total_bytes; /* of the job */
    /* While the guest's device still uses the old file, and as it was then: */
    char source_node[COPY_NODE_MAX];
    uint64_t bytes;                 /* as the guest sees it */
    char *backing, *backing_format; /* owned; NULL: none */
    char old_node[COPY_NODE_MAX];   /* an open file of this disk that is not the new one; empty: none */
};

struct copy_query {
    const char *command;
    bool flat; /* its argument of that name */
    void (*answered)(struct copy_look *look, const struct copy_names *names, const json_t *result);
};

#define COPY_LOOKS 4
extern const struct copy_query copy_looks[COPY_LOOKS];

/* `id` of the move. */
void copy_names_make(size_t disk, const char *id, struct copy_names *out);
/* Forgets what may have changed. */
void copy_look_begin(struct copy_look *look);
void copy_look_clear(struct copy_look *look);

#endif
