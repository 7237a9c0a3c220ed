/* Numbers and durations as people read them. Each writes into `out` and returns it. */
#ifndef BASE_FORMAT_H
#define BASE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define FORMAT_MAX 32

const char *format_bytes(uint64_t bytes, char out[static FORMAT_MAX]);             /* 1.5 GiB */
const char *format_duration_ms(uint64_t duration_ms, char out[static FORMAT_MAX]); /* 350 ms, 4.2 s, 3m12s, 2d4h */
const char *format_time_ms(int64_t wall_ms, char out[static FORMAT_MAX]);          /* 2025-01-31T12:00:00Z */

#endif
