/* guardian: a process of a few system calls that outlives the engine by a moment.
 *
 * While writes to guest RAM wait for us to let them through, an engine that is killed would leave the guest standing
 * still for good: its userfaultfd is QEMU's, too, so the kernel does not wake the waiters. The guardian holds the same
 * userfaultfd and a socket whose other end only the engine's process keeps open. When that closes without a word, it
 * ends the watch, which wakes whoever waits, and goes. Killed itself, it is noticed through guardian_fd(), and the
 * engine ends the watch. Should both be killed at once, whoever runs engines has the watch ended (release.h).
 *
 * It holds the tracker's lock, too, so that no later engine begins while an old guardian may still end its watch. */
#ifndef MIGRATE_GUARDIAN_H
#define MIGRATE_GUARDIAN_H

#include "base/err.h"
#include "migrate/uffd.h"

struct guardian;

/* Starts it. `uffd` and `lock_fd` are lent to this process and copied to the guardian's. Take: guardian_dismiss(). */
MUST_CHECK int guardian_start(const struct uffd *uffd, int lock_fd, struct err *err, struct guardian **out);
/* Readable once it has ended. */
int guardian_fd(const struct guardian *guardian);
/* Sends it away: it touches nothing. Returns when it is gone. NULL is fine. */
void guardian_dismiss(struct guardian *guardian);

#endif
