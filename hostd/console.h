/* The guests' serial consoles. QEMU appends all output to a log file in the partition's directory, whether hostd runs
 * or not; offsets are offsets in that file. It is kept small by punching holes into its front, so that the last 256 KiB
 * can be read under the offsets they always had. Input goes through QEMU's serial socket, connected only while somebody
 * types: a client that does not read would stall the guest. Single-threaded. */
#ifndef HOSTD_CONSOLE_H
#define HOSTD_CONSOLE_H

#include <uv.h>

#include "hostd/partition/partition.h"

#define CONSOLE_KEPT_BYTES (256u << 10)

struct console;

/* Lends the partitions. Take: console_close(). */
struct console *console_open(uv_loop_t *loop, struct partitions *partitions);
/* Readers that wait are answered with nothing. */
void console_close(struct console *console);

/* Requests; each takes `request` and sees to its answer. */
void console_read(struct console *console, const Drover__ConsoleReadRequest *message, struct wire_request *request);
void console_write(struct console *console, const Drover__ConsoleWriteRequest *message, struct wire_request *request);

/* Drops what is older than the kept bytes; to be called now and then. */
void console_trim(const char *directory);

/* The part of a log of `size` bytes that answers a reader at `offset` who takes up to `max`: where it starts and how
 * long it is. Pure. A reader ahead of the end (the guest has moved here meanwhile) starts over at the oldest. */
struct console_range {
    uint64_t offset;
    size_t bytes;
};
struct console_range console_range(uint64_t size, uint64_t offset, uint32_t max);

#endif
