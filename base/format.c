#include "base/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

const char *format_bytes(uint64_t bytes, char out[static FORMAT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    double value = (double)bytes;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(out, FORMAT_MAX, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

const char *format_duration_ms(uint64_t ms, char out[static FORMAT_MAX])
{
    uint64_t s = ms / 1000;
    if (ms < 1000)
        snprintf(out, FORMAT_MAX, "%" PRIu64 " ms", ms);
    else if (s < 60)
        snprintf(out, FORMAT_MAX, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
    else if (s < 3600)
        snprintf(out, FORMAT_MAX, "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, FORMAT_MAX, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s % 3600 / 60);
    else
        snprintf(out, FORMAT_MAX, "%" PRIu64 "d%02" PRIu64 "h", s / 86400, s % 86400 / 3600);
    return out;
}

const char *format_time_ms(int64_t wall_ms, char out[static FORMAT_MAX])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(out, FORMAT_MAX, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return out;
}
