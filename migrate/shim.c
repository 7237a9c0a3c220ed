/* libdrover-shim.so: preloaded into QEMU, it leaves a userfaultfd open in the process and does nothing else.
 *
 * A userfaultfd watches the address space of the process that made it. The engine, another process, takes a copy of
 * this one with pidfd_getfd(2) and uses it to see which pages of guest RAM are written (tracker.c). Nothing is
 * registered here, so a guest that is never migrated pays nothing. If the kernel refuses, QEMU starts all the same, and
 * the migration's preflight says why it cannot track. The variable that loaded this library is removed, so that QEMU's
 * children do not inherit it. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

__attribute__((constructor)) static void shim_open(void)
{
    /* Without privilege only faults of user mode may be handled. That is enough here: asynchronous write-protection is
     * resolved by the kernel itself, also for its own writes on behalf of QEMU. */
    if (syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK) < 0)
        (void)!syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    unsetenv("LD_PRELOAD");
}
