/* hostticks: this processor's cycle counter, which is what QEMU has an emulated guest's TSC count. */
#ifndef MIGRATE_HOSTTICKS_H
#define MIGRATE_HOSTTICKS_H

#include <stdint.h>

#include "base/clock.h"

#define HOSTTICKS_RATE_NS UINT64_C(20000000) /* what a rate is taken over at least: then it is right to 1e-4 */

struct hostticks {
    uint64_t ns, ticks;
};

/* Now, by both clocks; ticks 0: of this kind of processor it is not known. */
static inline struct hostticks hostticks_now(void)
{
#ifdef __x86_64__
    return (struct hostticks){clock_now_ns(), __builtin_ia32_rdtsc()};
#else
    return (struct hostticks){clock_now_ns(), 0};
#endif
}

/* Pure: how many ticks `ns` are, by the rate between two readings; 0: they do not tell. */
static inline uint64_t hostticks_in(const struct hostticks *from, const struct hostticks *to, uint64_t ns)
{
    if (to->ns < from->ns + HOSTTICKS_RATE_NS || to->ticks <= from->ticks || from->ticks == 0)
        return 0;
    return (uint64_t)((double)ns * (double)(to->ticks - from->ticks) / (double)(to->ns - from->ns));
}

#endif
