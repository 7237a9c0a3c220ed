/* What the files of hypervisor/qemu/ share. */
#ifndef HOSTD_HYPERVISOR_QEMU_PRIVATE_H
#define HOSTD_HYPERVISOR_QEMU_PRIVATE_H

#include "hostd/hypervisor/hypervisor.h"

struct hypervisor {
    uv_loop_t *loop;
    char *program;
    char *shim; /* NULL: none */
    uint64_t tcg_cache_mb;
    struct hypervisor_facts facts;
};

/* Version and machine types, asked of the program itself. */
MUST_CHECK int discover_program(const char *program, struct err *err, struct hypervisor_facts *out);
/* Whether guests started with `shim` can have their writes tracked. */
void discover_tracker(const char *shim, struct hypervisor_facts *out);

#endif
