/* blind: who writes guest memory where nobody sees it. The kernel (vhost), another process (vhost-user) or a device
 * (VFIO) that has the guest's memory to itself leaves no trace in QEMU's page tables, so a guest that has one cannot be
 * moved. All are refused by name. Pure but for blind_check_process(). */
#ifndef MIGRATE_BLIND_H
#define MIGRATE_BLIND_H

#include <jansson.h>
#include <sys/types.h>

#include "base/err.h"

/* A device of QEMU: its name and QOM type. */
MUST_CHECK int blind_check_device(const char *name, const char *type, struct err *err);
/* A block node: its name and driver. Some drivers have the device write guest memory itself. */
MUST_CHECK int blind_check_block(const char *name, const char *driver, struct err *err);
/* What QEMU's monitor says of its network cards (info network). */
MUST_CHECK int blind_check_network(const char *text, struct err *err);
/* What the process has open: the kernel's helpers are used through device files, whatever the device is called. */
MUST_CHECK int blind_check_process(pid_t pid, struct err *err);

#endif
