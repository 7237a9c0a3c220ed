/* Moving a VM's disk to another file. What can be refused without asking the host is. */
#include <string.h>

#include "controller/api/call.h"
#include "controller/api/validate.h"
#include "controller/random.h"

/* The disk that is meant: the one named, else the only writable one. */
static int disk_choose(const Drover__VmSpec *spec, Drover__StorageMove *move, struct err *err)
{
    const Drover__Disk *found = NULL;
    size_t writable = 0;
    for (size_t i = 0; i < spec->n_disks; i++) {
        const Drover__Disk *disk = spec->disks[i];
        writable += !disk->read_only;
        if (move->disk[0] ? strcmp(disk->path, move->disk) == 0 : !disk->read_only)
            found = disk;
    }
    if (!found && move->disk[0])
        return err_set(err, ERR_NOT_FOUND, "VM %s has no disk %.256s; `drover vm show %s` lists them", spec->name,
            move->disk, spec->name);
    if (!move->disk[0] && writable != 1)
        return err_set(
            err, ERR_INVALID, "VM %s has %zu writable disks; say which one with --disk PATH", spec->name, writable);
    if (found->read_only)
        return err_set(err, ERR_UNSUPPORTED,
            "disk %.256s is read-only: nothing writes to it, so copy the file and create the VM with the copy",
            found->path);
    pb_string(&move->disk, found->path);
    if (!move->format[0])
        pb_string(&move->format, found->format[0] ? found->format : "raw");
    return 0;
}

static int move_check(
    const struct api_call *call, const Drover__VmMoveStorageRequest *request, struct err *err, struct state_vm *vm)
{
    if (api_vm(call, request->name, err, vm) < 0 || validate_storage_move(request->move, err) < 0 ||
        validate_text("reason", request->reason, VALIDATE_TEXT_MAX, err) < 0)
        return -1;
    if (!vm->owner[0] && !vm->job_id)
        return err_set(err, ERR_WRONG_STATE,
            "VM %s does not run; only the disks of a running VM are moved; start it first: `drover vm start %s`",
            vm->name, vm->name);
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(call->c->state, vm->id);
    if (disk_choose(spec, request->move, err) < 0)
        return -1;
    if (request->move->shallow && strcmp(request->move->format, "qcow2") != 0)
        return err_set(err, ERR_INVALID, "a raw file cannot read from a backing file: --shallow needs qcow2");
    return 0;
}

static void vm_move_storage(struct api_call *call)
{
    const Drover__VmMoveStorageRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    char id[RANDOM_UUID];
    if (move_check(call, request, &err, &vm) < 0) {
        api_fail(call, &err);
        return;
    }
    random_uuid(id);
    Drover__JobCreate *create = api_job_new(DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE, vm.name);
    pb_string(&create->vm_id, vm.id);
    pb_string(&create->reason, request->reason);
    pb_string(&create->data->vm_id, vm.id);
    pb_string(&create->data->from_host, vm.owner);
    pb_string(&create->data->migration_id, id);
    create->data->storage = pb_copy(request->move);
    pb_string(&create->data->storage->settled, "");
    job_add_steps(create, false);
    api_job(call, create);
}

const struct api_method api_storage_methods[] = {
    {DROVER__METHOD__VM_MOVE_STORAGE, API_CHANGE, &drover__vm_move_storage_request__descriptor, vm_move_storage},
    {0},
};
