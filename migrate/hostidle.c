#include "migrate/hostidle.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/cleanup.h"

/* What is counted as idle comes in ticks of 10 ms, so less says little. */
#define EVERY_NS UINT64_C(50000000)

static uint64_t idle_ticks(void)
{
    uint64_t idle = 0, waiting = 0;
    char line[256];
    cleanup_file FILE *file = fopen("/proc/stat", "re");
    if (!file || !fgets(line, sizeof line, file) ||
        sscanf(line, "cpu %*u %*u %*u %" SCNu64 " %" SCNu64, &idle, &waiting) != 2)
        return 0; /* so nothing seems idle, which is the safe guess */
    return idle + waiting;
}

void hostidle_look(struct hostidle *idle, uint64_t now_ns)
{
    if (idle->looked_ns && now_ns - idle->looked_ns < EVERY_NS)
        return;
    uint64_t ticks = idle_ticks();
    if (idle->looked_ns && ticks >= idle->ticks) {
        double idle_s = (double)(ticks - idle->ticks) / (double)sysconf(_SC_CLK_TCK);
        atomic_store(&idle->cores, idle_s * 1e9 / (double)(now_ns - idle->looked_ns));
    }
    idle->looked_ns = now_ns;
    idle->ticks = ticks;
}
