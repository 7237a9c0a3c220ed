/* drover vm move-storage */
#include "cli/cmd_vm.h"
#include "proto/limits.h"

static int move_storage_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__VmMoveStorageRequest request = DROVER__VM_MOVE_STORAGE_REQUEST__INIT;
    Drover__StorageMove move = DROVER__STORAGE_MOVE__INIT;
    request.name = (char *)args->words[0];
    request.move = &move;
    move.target = (char *)args_text(args, "to");
    if (args_on(args, "disk"))
        move.disk = (char *)args_text(args, "disk");
    if (args_on(args, "format"))
        move.format = (char *)args_text(args, "format");
    if (args_on(args, "reason"))
        request.reason = (char *)args_text(args, "reason");
    move.shallow = args_on(args, "shallow");
    move.keep = args_on(args, "keep");
    move.bandwidth_bytes_per_s = args_number(args, "bandwidth", 0);
    return cli_submit(cli, args, DROVER__METHOD__VM_MOVE_STORAGE, &request.base, request.name, NULL, err);
}

static const struct flag move_storage_flags[] = {
    {"to", 0, FLAG_TEXT, .required = true, .value = "PATH", .help = "the new file, or the directory it goes into"},
    {"disk", 0, FLAG_TEXT, .value = "PATH", .help = "which disk; needed when the VM has several that it writes to"},
    {"format", 0, FLAG_CHOICE, .value = "raw|qcow2", .help = "of the new file; else as it is"},
    {"shallow", 0, FLAG_SWITCH, .help = "qcow2: copy only what is above the backing file, and go on reading from that"},
    {"keep", 0, FLAG_SWITCH, .help = "keep the old file; it is as the guest left it at the change-over"},
    {"bandwidth", 0, FLAG_SIZE, .value = "BYTES/S", .min = LIMITS_BANDWIDTH_MIN, .max = LIMITS_BYTES_PER_S,
        .help = "copy no faster, e.g. 50M"},
    {"reason", 0, FLAG_TEXT, .value = "TEXT", .help = "why, for the record of the job"},
    {NULL},
};

const struct command cmd_vm_move_storage = {
    .path = "vm move-storage",
    .arguments = "VM",
    .kind = COMMAND_JOB,
    .summary = "move a disk of a running VM to another file while it goes on",
    .text = "The disk is copied on the VM's host while the guest writes; then the guest stands still for some "
            "milliseconds and\n"
            "goes on with the new file. If anything fails before that, "
            "or the job is cancelled, the guest simply goes on with\n"
            "the old one. The old file is removed once the VM's "
            "definition names the new one. Holes stay holes. A qcow2 file\n"
            "with a backing file becomes one that stands alone, unless --shallow is given.\n"
            "The new file must lie in one of the directories that the host's configuration names for disks.",
    .example = "drover vm move-storage web-1 --to /srv/fast/\n"
               "drover vm move-storage web-1 --disk /srv/slow/data.raw --to /srv/fast/data.qcow2 --format qcow2 --keep",
    .flags = move_storage_flags,
    .run = move_storage_run,
};
