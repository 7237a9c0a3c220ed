/* Memory for one more guest: what is left of the host's capacity, and of the file system that its RAM file is to be on.
 * room_check() is pure. */
#ifndef HOSTD_PARTITION_ROOM_H
#define HOSTD_PARTITION_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct room {
    uint64_t memory_bytes;       /* of the capacity: promised to nobody */
    bool by_directory;           /* the capacity is what the file system holds, less than what was asked for */
    uint64_t ram_free_bytes;     /* in the file system of host.memory_directory */
    uint64_t ram_promised_bytes; /* of these: what guests that are here have not touched yet */
};

/* ERR_CAPACITY, with the next step, where a guest of `need` bytes does not fit in. */
MUST_CHECK int room_check(const struct room *room, uint64_t need, struct err *err);
/* The size of the file system that `directory` is on; UINT64_MAX: not limited, or not known. */
uint64_t room_directory_bytes(const char *directory);

#endif
