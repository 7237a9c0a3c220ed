#include "migrate/pressure.h"

/* What is left of the past with each batch: the last eight or so count. */
#define FADING 0.875
/* Taking pains makes a batch take up to twice the work, so it must leave time to wait; and it is not given up as long
 * as some is left. */
#define WAIT_FROM 0.5
#define WAIT_TO   0.2
/* Of a core: what is counted as idle comes in ticks of 10 ms. */
#define IDLE_FROM 0.4
#define IDLE_TO   0.1

void pressure_note(struct pressure *p, uint64_t work_ns, uint64_t wait_ns, double idle_cores)
{
    p->work_ns = p->work_ns * FADING + (double)work_ns;
    p->wait_ns = p->wait_ns * FADING + (double)wait_ns;
    double share = p->wait_ns / (p->work_ns + p->wait_ns + 1);
    p->bytes = share > (p->bytes ? WAIT_TO : WAIT_FROM) && idle_cores > (p->bytes ? IDLE_TO : IDLE_FROM);
}
