/* A segment of the log as it lies on the disk: every length in it may be wrong. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/ensure.h"
#include "raft/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment_report report, again;
    struct segment_name name;
    char text[64];
    segment_check(data, size, &report);
    ENSURE(report.at <= size);
    /* What libraft would keep of it is whole by itself, and no part of it is mistaken for a loss. */
    if (report.at > 0) {
        segment_check(data, report.at, &again);
        ENSURE(again.state == SEGMENT_WHOLE && again.at == report.at);
    }
    ENSURE(report.at > 0 || report.state != SEGMENT_WHOLE);
    memset(text, 0, sizeof text);
    memcpy(text, data, size < sizeof text ? size : sizeof text - 1);
    (void)segment_parse_name(text, &name);
    return 0;
}
