/* libdrover-shim.so: preloaded into QEMU. It leaves userfaultfds open in the process, and keeps memory at hand that
 * QEMU needs at once when its guest arrives; else it does nothing.
 *
 * A userfaultfd watches the address space of the process that made it. The engine, another process, takes a copy of
 * one with pidfd_getfd(2) and uses it to see which pages of guest RAM are written (tracker.h). Nothing is registered
 * here, so a guest that is never migrated pays nothing. There are two, because one agrees with the kernel on its
 * features once in its life, and a guest may leave by another tracker than it came. If the kernel refuses, QEMU starts
 * all the same, and the migration's preflight says why it cannot track. The variable that loaded this library is
 * removed, so that QEMU's children do not inherit it.
 *
 * A QEMU that loads its devices builds its map of memory a few dozen times, and frees each but the last: some 2 MB. It
 * has given that back to the kernel before, because its RCU thread trims the heap whenever it has nothing else to do,
 * so every page of it is a fault while the guest stands still, 600 in all. So a QEMU that waits for a guest has its
 * heap grown before it starts, and no heap is trimmed while its guest does not run. */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migrate/shim.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* QEMU's start takes most of it, its devices the rest: with 8 MiB 50 faults are left. */
#define HEAP_BYTES (12u << 20)
/* Where glibc goes by itself once a block so large is freed. */
#define MMAP_THRESHOLD (32 << 20)

/* Makes both; false: the kernel refuses. */
static bool shim_make(int flags)
{
    for (int i = 0; i < 2; i++)
        if (syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags) < 0)
            return false;
    return true;
}

/* Takes the place of glibc's. QEMU without that symbol (it exports them for its modules) trims as ever. */
__attribute__((visibility("default"))) int malloc_trim(size_t pad)
{
    bool (*running)(void) = (bool (*)(void))dlsym(RTLD_DEFAULT, "runstate_is_running");
    int (*trim)(size_t) = (int (*)(size_t))dlsym(RTLD_NEXT, "malloc_trim");
    return trim && (!running || running()) ? trim(pad) : 0;
}

static void shim_grow_heap(void)
{
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    mallopt(M_TRIM_THRESHOLD, 2 * MMAP_THRESHOLD);
    void *heap = malloc(HEAP_BYTES);
    if (heap)
        explicit_bzero(heap, HEAP_BYTES); /* a memset before free() may be left out */
    free(heap);
}

static bool shim_waits_for_guest(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-incoming") == 0)
            return true;
    return false;
}

/* glibc gives it what it gives to main. */
__attribute__((constructor)) static void shim_open(int argc, char **argv)
{
    /* Without privilege only faults of user mode may be handled. That is enough for asynchronous write-protection,
     * which the kernel resolves itself, also for its own writes on behalf of QEMU. For anything else it is not: the
     * label says so, because the descriptor does not. */
    if (!shim_make(0) && shim_make(UFFD_USER_MODE_ONLY))
        (void)!memfd_create(SHIM_USER_MODE_LABEL, MFD_CLOEXEC);
    if (shim_waits_for_guest(argc, argv))
        shim_grow_heap();
    unsetenv("LD_PRELOAD");
}
