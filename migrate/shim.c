/* libdrover-shim.so: preloaded into QEMU, it leaves userfaultfds open in the process and does nothing else.
 *
 * A userfaultfd watches the address space of the process that made it. The engine, another process, takes a copy of
 * one with pidfd_getfd(2) and uses it to see which pages of guest RAM are written (tracker.h). Nothing is registered
 * here, so a guest that is never migrated pays nothing. There are two, because one agrees with the kernel on its
 * features once in its life, and a guest may leave by another tracker than it came. If the kernel refuses, QEMU starts
 * all the same, and the migration's preflight says why it cannot track. The variable that loaded this library is
 * removed, so that QEMU's children do not inherit it. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate/shim.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* Makes both; false: the kernel refuses. */
static bool shim_make(int flags)
{
    for (int i = 0; i < 2; i++)
        if (syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags) < 0)
            return false;
    return true;
}

__attribute__((constructor)) static void shim_open(void)
{
    /* Without privilege only faults of user mode may be handled. That is enough for asynchronous write-protection,
     * which the kernel resolves itself, also for its own writes on behalf of QEMU. For anything else it is not: the
     * label says so, because the descriptor does not. */
    if (!shim_make(0) && shim_make(UFFD_USER_MODE_ONLY))
        (void)!memfd_create(SHIM_USER_MODE_LABEL, MFD_CLOEXEC);
    unsetenv("LD_PRELOAD");
}
