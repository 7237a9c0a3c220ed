/* The commands of 'drover vm' that have files of their own, and what they share. */
#ifndef CLI_CMD_VM_H
#define CLI_CMD_VM_H

#include <string.h>

#include "cli/cli.h"

extern const struct command cmd_vm_create, cmd_vm_set, cmd_vm_migrate, cmd_vm_move_storage, cmd_vm_console;

/* One VM by name, or a page of all behind `after`. Take: drover__vm_list_reply__free_unpacked(). */
MUST_CHECK int vm_fetch(struct cli *cli, const struct args *args, const char *name, const char *after, struct err *err,
    Drover__VmListReply **out);

/* "PATH[,format=raw|qcow2][,read-only]"; strings are copied into the disk. Take: vm_disk_free(). */
MUST_CHECK int vm_disk_parse(const char *text, struct err *err, Drover__Disk *out);
void vm_disk_free(Drover__Disk *disk);
/* "[NETWORK][,mac=MAC]"; the network "default" and none at all are the host's default one. Take: vm_nic_free(). */
MUST_CHECK int vm_nic_parse(const char *text, struct err *err, Drover__Nic *out);
void vm_nic_free(Drover__Nic *nic);

/* How a VM is moved, by the flags --max-downtime, `mode_flag` and --on-no-convergence; 0 what is not given. Into the
 * fields of that name of `out` alone. */
void vm_policy_read(const struct args *args, const char *mode_flag, Drover__VmSpec *out);
/* Shows what applies to its moves. */
void vm_policy_print(const Drover__VmSpec *spec);
/* The values of these flags, and what is said of them. */
#define VM_POLICY_MODES "precopy|auto|hybrid|postcopy"
#define VM_POLICY_STUCK "cancel|postcopy|throttle"
#define VM_POLICY_STUCK_HELP                                                                                           \
    "when the guest writes too fast: give up, send the rest after the switch, or slow the guest down"

#endif
