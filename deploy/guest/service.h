/* The guest's services, each a thread: a counter over TCP (port 7000), a UDP echo (port 7001) and the beat (beat.h).
 *
 * A client of the counter sends one command a line and gets one line back:
 *   get              adds one to the counter and says it: nobody ever sees a number twice, or misses one
 *   uptime           milliseconds since boot
 *   boot             an identifier made at boot
 *   verify           checks the memory pattern: "ok PAGES" or "corrupt N"
 *   verify disk      reads the disk's blocks back: "ok BLOCKS" or "corrupt N"
 *   verify store     reads the values in redis back: "ok VALUES" or "corrupt N"
 *   verify read      checks the buffers that were read from the disk: "ok BLOCKS" or "corrupt N"
 *   clock            CLOCK_REALTIME and CLOCK_MONOTONIC, in seconds
 *   complaints       how often the kernel has complained of clocks or lockups since boot, and the newest such line
 *   load SPEC        as drover.run= on the kernel's command line, with blanks or colons: "ok" or "error WHY"
 *   load             the last SPEC
 *   stream [MS]      from now on an increasing number every 10 (or MS) ms, until the client goes
 *   poweroff         as the power button would
 *   quit
 * Anything else: "error WHY". */
#ifndef GUEST_SERVICE_H
#define GUEST_SERVICE_H

#define COUNTER_PORT 7000
#define ECHO_PORT    7001

/* Runs loads, several with commas: "cpu:PERCENT", "mem:PAGES_PER_S:BYTES[K|M|G][:RANDOM_PERCENT[:ORDER]]" with ORDER
 * random, seq or zipf, "disk:WRITES_PER_S", "read:RUNS_PER_S", "store:OPERATIONS_PER_S:VALUES". "idle" ends them all.
 * NULL, or what is wrong with it. */
const char *loads_run(const char *spec);

/* Ends the guest. In workload.c. */
void power_off(void);

/* Starts all services; -1 when a socket or thread could not be had. */
int services_start(void);

#endif
