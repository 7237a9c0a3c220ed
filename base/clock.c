#include "base/clock.h"

#include <time.h>

#define STAMP_AGE_MAX_US 60000000

uint64_t clock_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_now_ms(void)
{
    return clock_now_ns() / 1000000u;
}

uint64_t clock_of_wall_ns(int64_t wall_us)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t age_us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 - wall_us;
    return clock_now_ns() - (age_us > 0 && age_us < STAMP_AGE_MAX_US ? (uint64_t)age_us * 1000 : 0);
}

int64_t clock_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
