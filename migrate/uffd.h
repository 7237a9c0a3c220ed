/* uffd: the userfaultfd of a running QEMU, as seen from the engine.
 *
 * The shim left some open inside QEMU; one is taken with pidfd_getfd(2) and watches QEMU's mapping of the RAM file.
 * Both the dirty page tracking of a source and the post-copy of a destination work through it, one after the other: a
 * guest that came by post-copy leaves by pre-copy. The kernel lets a userfaultfd agree on its features once in its
 * life. What one has agreed on is read from /proc/self/fdinfo, so that a guest can be moved by one tracker after
 * another. */
#ifndef MIGRATE_UFFD_H
#define MIGRATE_UFFD_H

#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "migrate/ram.h"

/* What it is needed for; what the kernel must know for it. */
enum uffd_use {
    UFFD_TRACK_ASYNC, /* the kernel resolves writes to protected pages itself: Linux 6.7 */
    UFFD_TRACK_SYNC,  /* we resolve them: Linux 5.19 */
    UFFD_FETCH,       /* missing pages: any; needs none of what differs between the others */
};

struct uffd {
    int fd;           /* -1: closed */
    uint64_t address; /* of RAM in QEMU */
    uint64_t bytes;
};

#define UFFD_CLOSED ((struct uffd){.fd = -1})

/* Takes one and finds RAM in the address space of QEMU `pid`. ERR_UNSUPPORTED says what is missing and what to do;
 * ERR_WRONG_STATE: pages of this guest are still missing, because the engine of an earlier post-copy died. Take:
 * uffd_close(). */
MUST_CHECK int uffd_open(pid_t pid, const struct ram *ram, enum uffd_use use, struct err *err, struct uffd *out);
/* Watches all of RAM in `mode` (UFFDIO_REGISTER_MODE_*). */
MUST_CHECK int uffd_watch(const struct uffd *uffd, uint64_t mode, struct err *err);
/* Ends it and wakes whoever waits; what is missing then reads as zeros. */
void uffd_unwatch(const struct uffd *uffd);
/* Ends every watch over RAM that dead engines have left in QEMU `pid`, and wakes whoever waits. ERR_UNSUPPORTED: it has
 * no userfaultfd, so nobody waits; ERR_WRONG_STATE as above: nothing is touched, lest what is missing read as zeros. */
MUST_CHECK int uffd_release(pid_t pid, const struct ram *ram, struct err *err);
/* Lets go of the descriptor; what is watched stays watched, because QEMU's own descriptor lives on. */
void uffd_close(struct uffd *uffd);

#endif
