/* What the hosts of a cluster have in common: the machine type and the processor that a guest can be given so that it
 * may run on, and move between, all of them. Pure: facts in, names out. */
#ifndef CONTROLLER_PLACEMENT_BASELINE_H
#define CONTROLLER_PLACEMENT_BASELINE_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/api.pb-c.h"

#define BASELINE_CPU_MAX 200 /* of a processor's name with its features, with the NUL */

struct baseline_host {
    const char *name;
    const Drover__HostFacts *facts; /* never NULL */
};

/* True: `a` is a versioned machine type later than `b` (or `b` is none): pc-q35-10.0 is later than pc-q35-9.2. */
bool baseline_machine_later(const char *a, const char *b);
/* The latest one that every host has; NULL: none in common. Lent from the facts. */
const char *baseline_machine(const struct baseline_host *hosts, size_t count);

/* The richest processor all hosts of the accelerator can show: a named model, less what some host lacks of it, plus
 * what guests should have and all hosts offer ("Haswell-v4,-hle,+pcid"). False: none in common, `out` is untouched. */
bool baseline_cpu(
    const struct baseline_host *hosts, size_t count, const char *accelerator, char out[static BASELINE_CPU_MAX]);

/* The same for every accelerator in use, with which host keeps it from being more. Take: pb_free(). */
Drover__ClusterCpuReply *baseline_report(const struct baseline_host *hosts, size_t count);

#endif
