/* pressure: are bytes dear or is CPU time? From how a worker spends its time, batch by batch, and from what the host
 * has to spare. Pure.
 *
 * Where workers wait for the wire while cores are idle, it pays to look for pages that need not be sent, to keep copies
 * for deltas and to pack tightly. Where they do not, all of that only makes a move longer (160 MiB over an unshaped
 * link on two cores: packing tightly took 80 ms of CPU time more than quickly, copies 60 ms, digests 40 ms, of 750).
 *
 * Waiting alone does not tell: where too few cores are shared with others, or with the destination, a worker waits for
 * whoever should take its batch, and what it computes more makes that worse. */
#ifndef MIGRATE_PRESSURE_H
#define MIGRATE_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

struct pressure {
    double work_ns, wait_ns; /* of the last batches, the older the less */
    bool bytes;              /* the verdict; at first that CPU time is dear */
};

/* A batch took so long to make, and then so long to get rid of; meanwhile `idle_cores` of the host had nothing to do.
 */
void pressure_note(struct pressure *pressure, uint64_t work_ns, uint64_t wait_ns, double idle_cores);

#endif
