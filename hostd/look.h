/* Looks at the files a guest would use, without changing anything. May wait for storage that hangs: for threads beside
 * the loop. */
#ifndef HOSTD_LOOK_H
#define HOSTD_LOOK_H

#include <stdbool.h>
#include <stdint.h>

struct look {
    char problem[128];  /* why it cannot be used; empty: it can */
    const char *format; /* what it looks like: raw or qcow2. Lent for ever */
    uint64_t bytes;     /* of a disk, as a guest sees it; 0: not known */
    uint64_t inode;     /* 0: a device, or not known */
    uint64_t born_ms;   /* since 1970; 0: a device, or not known */
    char device[160];   /* KIND:ID, the same wherever the device is reached; empty: a file, or not known */
    bool locked;        /* a QEMU has it open, wherever that runs, as far as the file system tells */
};

/* `write`: it would be written to as well. */
void look_at(const char *path, bool write, struct look *out);

#endif
