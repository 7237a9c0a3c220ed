/* uffd: the userfaultfd of a running QEMU, as seen from the engine.
 *
 * The shim left it open inside QEMU; it is taken with pidfd_getfd(2) and watches QEMU's mapping of the RAM file. Both
 * the dirty page tracking of a source and the post-copy of a destination work through it, one after the other: a guest
 * that came by post-copy leaves by pre-copy. The kernel lets a userfaultfd agree on its features once in its life, so
 * the one place here asks for everything any of the two needs. */
#ifndef MIGRATE_UFFD_H
#define MIGRATE_UFFD_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "migrate/ram.h"

struct uffd {
    int fd;      /* -1: closed */
    bool shaken; /* the kernel knows all features; false: an earlier migration has agreed on them, or it does not */
    uint64_t address; /* of RAM in QEMU */
    uint64_t bytes;
};

#define UFFD_CLOSED ((struct uffd){.fd = -1})

/* Takes it and finds RAM in the address space of QEMU `pid`. ERR_UNSUPPORTED says what is missing and what to do;
 * ERR_STATE: pages of this guest are still missing, because the engine of an earlier post-copy died. Take:
 * uffd_close().
 */
MUST_CHECK int uffd_open(pid_t pid, const struct ram *ram, struct err *err, struct uffd *out);
/* Watches all of RAM in `mode` (UFFDIO_REGISTER_MODE_*). */
MUST_CHECK int uffd_watch(const struct uffd *uffd, uint64_t mode, struct err *err);
/* Ends it and wakes whoever waits; what is missing then reads as zeros. */
void uffd_unwatch(const struct uffd *uffd);
/* Lets go of the descriptor; what is watched stays watched, because QEMU's own descriptor lives on. */
void uffd_close(struct uffd *uffd);

#endif
