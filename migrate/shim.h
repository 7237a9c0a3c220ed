/* What the shim and the engine agree on without ever meeting: names in QEMU's descriptor table. */
#ifndef MIGRATE_SHIM_H
#define MIGRATE_SHIM_H

/* Name of an empty memfd: the userfaultfds beside it are told of faults of user mode only. */
#define SHIM_USER_MODE_LABEL "drover-user-mode-faults"

#endif
