/* heap: messages of 256 KiB come and go thousands of times a second. By default the heap gives their pages back to the
 * kernel each time, to have them cleared and mapped in again by the next: a seventh of both sides' CPU time. For the
 * main function of programs that send or receive pages, before any thread starts. What is kept is bounded by what was
 * in use at once. */
#ifndef MIGRATE_HEAP_H
#define MIGRATE_HEAP_H

#include <malloc.h>

#define HEAP_KEPT_BYTES (64 << 20)
#define HEAP_MMAP_BYTES (1 << 20) /* larger blocks are mapped and given back one by one */

static inline void heap_keep(void)
{
    mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_BYTES);
    mallopt(M_MMAP_THRESHOLD, HEAP_MMAP_BYTES);
}

#endif
