#include "proto/trackers.h"

#include <stddef.h>
#include <string.h>

/* The one that asks most of the kernel first. */
static const char *const kinds[] = {"wp-async", "wp-sync", "qemu"};
#define KINDS (sizeof kinds / sizeof *kinds)

/* KINDS: unknown. */
static size_t rank(const char *name)
{
    size_t i = 0;
    while (i < KINDS && strcmp(name, kinds[i]) != 0)
        i++;
    return i;
}

bool trackers_any(const char *name)
{
    return !name[0] || strcmp(name, "auto") == 0;
}

bool trackers_known(const char *name)
{
    return trackers_any(name) || rank(name) < KINDS;
}

bool trackers_had(const char *best, const char *name)
{
    return strcmp(best, name) == 0 || (rank(name) < KINDS && rank(best) < rank(name));
}
