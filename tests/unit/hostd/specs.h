/* A VM with one of everything, for the tests of hostd. */
#ifndef TESTS_UNIT_HOSTD_SPECS_H
#define TESTS_UNIT_HOSTD_SPECS_H

#include "hostd/partition/spec.h"

#define SPECS_VM_ID "0f4d6a2e-1c5b-4a39-9e87-3b2a1c0d9e8f"

struct specs {
    Drover__VmSpec spec;
    Drover__Disk disk, *disks[1];
    Drover__Nic nic, *nics[1];
};

/* `out` must not move: its parts point at each other. */
static inline void specs_make(struct specs *out)
{
    *out = (struct specs){DROVER__VM_SPEC__INIT, DROVER__DISK__INIT, {NULL}, DROVER__NIC__INIT, {NULL}};
    out->disk.path = (char *)"/srv/disks/web,1.img";
    out->disk.format = (char *)"qcow2";
    out->disks[0] = &out->disk;
    out->nic.mac = (char *)"52:54:00:12:34:56";
    out->nics[0] = &out->nic;
    out->spec.name = (char *)"web-1";
    out->spec.vcpus = 2;
    out->spec.memory_bytes = 256ull << 20;
    out->spec.disks = out->disks;
    out->spec.n_disks = 1;
    out->spec.nics = out->nics;
    out->spec.n_nics = 1;
    out->spec.kernel = (char *)"/srv/vmlinux";
    out->spec.initrd = (char *)"/srv/initrd";
    out->spec.cmdline = (char *)"console=ttyS0 quiet";
    out->spec.max_downtime_ms = 50;
}

#endif
