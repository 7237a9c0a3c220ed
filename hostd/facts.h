/* What this host says of itself when it connects. */
#ifndef HOSTD_FACTS_H
#define HOSTD_FACTS_H

#include "hostd/hypervisor/hypervisor.h"
#include "hostd/options.h"

/* The message and the memory its fields are in; lends `options` and the hypervisor's facts. */
struct facts {
    Drover__HostFacts message;
    Drover__Capacity capacity;
    char kernel[256];
    char boot_id[64];
    char machine[40];
    char clock_source[64];
};

MUST_CHECK int facts_gather(
    const struct options *options, const struct hypervisor_facts *hypervisor, struct err *err, struct facts *out);

#endif
