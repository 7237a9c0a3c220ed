/* Private to placement/: whether a guest that was given a processor on one host finds the same on another. Pure.
 *
 * A processor is QEMU's -cpu: a model, features switched off (-x) and on (+x). Empty is what hostd gives then: all the
 * host has. */
#ifndef CONTROLLER_PLACEMENT_PROCESSOR_H
#define CONTROLLER_PLACEMENT_PROCESSOR_H

#include "base/buf.h"
#include "controller/placement/baseline.h"

/* True: the host has said which models it knows, and this is none; its name goes to `model`. */
bool processor_unknown(const char *cpu, const Drover__HostFacts *to, char model[static BASELINE_CPU_MAX]);
/* How many features the guest has that `to` lacks; the first of them, in words, are appended to `names`. */
size_t processor_missing(
    const char *cpu, const Drover__HostFacts *from, const Drover__HostFacts *to, struct buf *names);
/* How many features `to` would show beyond those of `from`; only a processor without a name has that. */
size_t processor_extra(const char *cpu, const Drover__HostFacts *from, const Drover__HostFacts *to, struct buf *names);

#endif
