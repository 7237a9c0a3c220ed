/* Checks of what users send. Each error names the thing, what is wrong with it, and what would be right. Pure. */
#ifndef CONTROLLER_API_VALIDATE_H
#define CONTROLLER_API_VALIDATE_H

#include "base/err.h"
#include "proto/api.pb-c.h"

#define VALIDATE_DISKS_MAX   16
#define VALIDATE_NICS_MAX    8
#define VALIDATE_CMDLINE_MAX 2048
#define VALIDATE_TEXT_MAX    256

/* a-z, 0-9 and '-', 1 to 63 characters, beginning with a letter or digit. `what` is the noun: "VM", "host". */
MUST_CHECK int validate_name(const char *what, const char *name, struct err *err);
/* tcp://IP:PORT. */
MUST_CHECK int validate_address(const char *address, struct err *err);
/* Valid UTF-8 without control characters, at most `max` bytes. */
MUST_CHECK int validate_text(const char *what, const char *text, size_t max, struct err *err);
/* Everything a VM may be. */
MUST_CHECK int validate_vm_spec(const Drover__VmSpec *spec, struct err *err);
/* What of it may be changed later: how it is moved. */
MUST_CHECK int validate_vm_set(const Drover__VmSetRequest *request, struct err *err);
/* Its disk may be empty. */
MUST_CHECK int validate_storage_move(const Drover__StorageMove *move, struct err *err);
MUST_CHECK int validate_migration_options(const Drover__MigrationOptions *options, struct err *err);

#endif
