/* The command line of QEMU. Pure: two hosts that build it for the same VM differ only in the paths, descriptors and
 * interface names they are given, so that every device has the same id and PCI address on both sides of a migration. */
#ifndef HOSTD_HYPERVISOR_QEMU_COMMAND_H
#define HOSTD_HYPERVISOR_QEMU_COMMAND_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/types.pb-c.h"

struct command_config {
    const char *program;
    const char *vm_id;
    const Drover__VmSpec *spec; /* spec_check()ed */
    const char *accelerator;    /* kvm or tcg */
    uint64_t tcg_cache_mb;
    const char *ram_path;
    const char *serial_log;
    int qmp_fd, qmp_engine_fd, serial_fd; /* listening sockets it inherits */
    const char *const *taps;
    bool incoming, disks_come;
};

/* Ends with NULL. Take: command_free(). */
char **command_build(const struct command_config *config);
void command_free(char **argv);

/* The arguments of blockdev-add for a disk of a guest that runs: as command_build() has it, under another name, and so
 * that zeros need no room in the file. Take: json_decref(). */
json_t *command_disk_node(const Drover__Disk *disk, const char *node);

#endif
