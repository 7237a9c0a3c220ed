/* The beat: the guest says at a steady pace that it runs, and how much work its loads have done (UDP port 7002).
 *
 * A client sends a datagram with a period in microseconds as decimal digits (500 to 1000000). For the next BEAT_LEASE_S
 * seconds it is sent one `struct beat` each period; asking again renews that. One client at a time: the last who asked.
 * Where a beat is missing, the guest did not run or was not heard; a pause is not caught up with. */
#ifndef GUEST_BEAT_H
#define GUEST_BEAT_H

#include <stdint.h>

#define BEAT_PORT    7002
#define BEAT_LEASE_S 30

/* On the wire as the CPU has it: little-endian. */
struct beat {
    uint64_t number; /* 1, 2, 3, ... since boot */
    uint64_t now_ns; /* the guest's CLOCK_MONOTONIC */
    uint64_t work;   /* work_total() */
};

/* Starts the thread; -1 when a socket or thread could not be had. */
int beat_start(void);

#endif
