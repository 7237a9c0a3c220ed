/* Time. Durations and deadlines use CLOCK_BOOTTIME (it goes on while the machine sleeps, and nobody can set it); wall
 * time is only ever shown to people. Code whose decisions depend on time takes `now` as a parameter, so that tests own
 * it. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ns(void);
uint64_t clock_now_ms(void);
/* When, by clock_now_ns(), the wall clock showed `wall_us` (since 1970): for what others have stamped not long ago.
 * Now, if that lies ahead or more than a minute back, because then somebody has set the wall clock since. */
uint64_t clock_of_wall_ns(int64_t wall_us);
/* Milliseconds since 1970 by the wall clock: for records people read, never for a decision. */
int64_t clock_wall_ms(void);

#endif
