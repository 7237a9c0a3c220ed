/* Time. Durations and deadlines use CLOCK_BOOTTIME (it goes on while the machine sleeps, and nobody can set it); wall
 * time is only ever shown to people. Code whose decisions depend on time takes `now` as a parameter, so that tests own
 * it. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_now_ns(void);
uint64_t clock_now_ms(void);
/* Milliseconds since 1970 by the wall clock: for records people read, never for a decision. */
int64_t clock_wall_ms(void);

#endif
