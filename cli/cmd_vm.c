/* drover vm: list, show, start, stop and delete. Creating, setting, migrating and the console have files of their own.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/format.h"
#include "cli/cli.h"
#include "cli/cmd_vm.h"
#include "cli/show.h"
#include "proto/pbjson.h"

int vm_fetch(struct cli *cli, const struct args *args, const char *name, const char *after, struct err *err,
    Drover__VmListReply **out)
{
    Drover__VmListRequest request = DROVER__VM_LIST_REQUEST__INIT;
    Drover__ReadOptions read;
    request.read = cli_read_options(args, &read);
    request.name = (char *)(name ? name : "");
    request.after = (char *)(after ? after : "");
    if (cli_call(cli, DROVER__METHOD__VM_LIST, &request.base, &drover__vm_list_reply__descriptor, err, out) < 0)
        return err_wrap(err, "%s%s%s", args->command->path, name ? " " : "", name ? name : "");
    return 0;
}

static void row_add(struct table *table, const Drover__Vm *vm)
{
    static const Drover__Load no_load = DROVER__LOAD__INIT;
    const Drover__Load *load = vm->load ? vm->load : &no_load;
    char text[SHOW_SHARE_MAX];
    table_add(table, "%s", vm->spec->name);
    table_add(table, "%s", show_vm_state(vm, text));
    table_add(table, "%s", vm->owner[0] ? vm->owner : "-");
    table_add(table, "%s", show_cores(load->cpu_cores, vm->spec->vcpus, text));
    table_add(table, "%s", show_bytes(load->memory_bytes, vm->spec->memory_bytes, text));
    table_add(table, "%.0f", load->disk_read_iops + load->disk_write_iops);
    table_add(table, "%s", vm->uptime_ms ? format_duration_ms(vm->uptime_ms, text) : "-");
    if (vm->job_id)
        table_add(table, "%" PRIu64, vm->job_id);
    else
        table_add(table, "-");
}

static int host_check(struct cli *cli, const struct args *args, const char *host, struct err *err)
{
    Drover__HostListRequest request = DROVER__HOST_LIST_REQUEST__INIT;
    Drover__HostListReply *reply;
    Drover__ReadOptions read;
    request.read = cli_read_options(args, &read);
    request.name = (char *)host; /* lent; protobuf-c does not know const */
    if (cli_call(cli, DROVER__METHOD__HOST_LIST, &request.base, &drover__host_list_reply__descriptor, err, &reply) < 0)
        return err_wrap(err, "%s", args->command->path);
    drover__host_list_reply__free_unpacked(reply, NULL);
    return 0;
}

static int list_run(struct cli *cli, const struct args *args, struct err *err)
{
    static const char *const columns[] = {"NAME", "STATE", "HOST", ">CPU", ">MEMORY", ">IOPS", ">UPTIME", ">JOB", NULL};
    const char *host = args_text(args, "host");
    if (host && host_check(cli, args, host, err) < 0)
        return -1;
    struct table *table = cli->format == OUTPUT_TABLE ? table_new(columns) : NULL;
    json_t *array = json_array();
    char *after = NULL;
    bool more = true;
    while (more) {
        Drover__VmListReply *reply;
        if (vm_fetch(cli, args, NULL, after, err, &reply) < 0)
            break;
        for (size_t i = 0; i < reply->n_vms; i++) {
            const Drover__Vm *vm = reply->vms[i];
            if (!vm->spec || (host && strcmp(vm->owner, host) != 0))
                continue;
            if (table)
                row_add(table, vm);
            else
                json_array_append_new(array, pbjson(&vm->base));
        }
        free(after);
        const Drover__Vm *last = reply->n_vms ? reply->vms[reply->n_vms - 1] : NULL;
        after = last && last->spec ? mem_strdup(last->spec->name) : NULL;
        more = reply->more && after;
        drover__vm_list_reply__free_unpacked(reply, NULL);
    }
    free(after);
    return cli_list_end(cli, table, array, !more,
        host ? "no VMs on that host" : "no VMs; 'drover help vm create' shows how to make one");
}

static void disk_print(const Drover__Disk *disk)
{
    output_field("Disk", "%s, %s%s%s%s%s%s", disk->path, disk->format[0] ? disk->format : "raw",
        disk->read_only ? ", read-only" : "", disk->cache[0] ? ", cache " : "", disk->cache,
        disk->aio[0] ? ", aio " : "", disk->aio);
}

static void spec_print(const Drover__VmSpec *spec)
{
    char text[FORMAT_MAX];
    output_field("vCPUs", "%" PRIu32 "%s%s", spec->vcpus, spec->cpu_model[0] ? ", " : "", spec->cpu_model);
    if (spec->machine_type[0])
        output_field("Machine", "%s", spec->machine_type);
    output_field("Memory", "%s", format_bytes(spec->memory_bytes, text));
    for (size_t i = 0; i < spec->n_disks; i++)
        disk_print(spec->disks[i]);
    for (size_t i = 0; i < spec->n_nics; i++)
        output_field(
            "NIC", "%s on %s", spec->nics[i]->mac, spec->nics[i]->network[0] ? spec->nics[i]->network : "default");
    if (spec->balloon)
        output_field("Balloon", "yes: the guest gives back memory that it does not use");
    if (spec->kernel[0])
        output_field("Kernel", "%s", spec->kernel);
    if (spec->initrd[0])
        output_field("Initrd", "%s", spec->initrd);
    if (spec->cmdline[0])
        output_field("Command line", "%s", spec->cmdline);
    vm_policy_print(spec);
}

static void vm_print(const Drover__Vm *vm)
{
    char text[64], bytes[FORMAT_MAX];
    output_field("VM", "%s", vm->spec->name);
    output_field("Id", "%s", vm->id);
    output_field("State", "%s (%s is wanted)", show_vm_state(vm, text),
        vm->desired == DROVER__VM_DESIRED__VM_DESIRED_RUNNING ? "running" : "stopped");
    if (vm->unknown[0])
        output_field("  because", "%s", vm->unknown);
    if (vm->halted[0])
        output_field("  because", "%s; once that is mended the guest goes on by itself", vm->halted);
    if (vm->last_end)
        output_field(
            "Last end", "%s on %s: %s", show_time(vm->last_end->at_ms, text), vm->last_end->host, vm->last_end->why);
    output_field("Host", "%s", vm->owner[0] ? vm->owner : "-");
    output_field("Generation", "%" PRIu64, vm->generation);
    if (vm->hand_over && vm->hand_over->to_host[0])
        output_field("Hand-over", "may be handed to %s", vm->hand_over->to_host);
    if (vm->job_id)
        output_field("Job", "%" PRIu64, vm->job_id);
    if (vm->uptime_ms)
        output_field("Uptime", "%s", format_duration_ms(vm->uptime_ms, text));
    if (vm->load)
        output_field("Load", "%.2f cores, %s, %.0f IOPS", vm->load->cpu_cores,
            format_bytes(vm->load->memory_bytes, bytes), vm->load->disk_read_iops + vm->load->disk_write_iops);
    spec_print(vm->spec);
    output_field("Created", "%s", show_time(vm->created_ms, text));
}

static int show_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__VmListReply *reply;
    if (vm_fetch(cli, args, args->words[0], NULL, err, &reply) < 0)
        return -1;
    int status = 0;
    if (reply->n_vms != 1 || !reply->vms[0]->spec)
        status = err_set(err, ERR_NOT_FOUND, "vm %s: there is none; 'drover vm list' shows the VMs", args->words[0]);
    else if (cli->format == OUTPUT_TABLE)
        vm_print(reply->vms[0]);
    else
        output_message(cli->format, &reply->vms[0]->base);
    drover__vm_list_reply__free_unpacked(reply, NULL);
    return status;
}

static int start_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__VmStartRequest request = DROVER__VM_START_REQUEST__INIT;
    request.name = (char *)args->words[0];
    if (args_on(args, "host"))
        request.host = (char *)args_text(args, "host");
    return cli_submit(cli, args, DROVER__METHOD__VM_START, &request.base, request.name, NULL, err);
}

static int stop_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__VmStopRequest request = DROVER__VM_STOP_REQUEST__INIT;
    request.name = (char *)args->words[0];
    request.force = args_on(args, "force");
    request.grace_ms = (uint32_t)args_number(args, "grace", 0) * 1000;
    return cli_submit(cli, args, DROVER__METHOD__VM_STOP, &request.base, request.name, NULL, err);
}

static int delete_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__VmDeleteRequest request = DROVER__VM_DELETE_REQUEST__INIT;
    request.name = (char *)args->words[0];
    return cli_submit(cli, args, DROVER__METHOD__VM_DELETE, &request.base, request.name, NULL, err);
}

static const struct flag list_flags[] = {
    {"host", 0, FLAG_TEXT, .value = "HOST", .help = "only those on this host"},
    {NULL},
};
static const struct command vm_list = {
    .path = "vm list",
    .kind = COMMAND_WATCH,
    .summary = "all VMs with their state and load",
    .text =
        "CPU and MEMORY are what is used, of what the VM has. STATE 'waiting': it should run and no host runs it yet;\n"
        "'unknown': its host is not heard, so it may run; 'halted': QEMU has stopped it because its storage failed.\n"
        "UPTIME is the guest's own and survives migrations. JOB is the job that works on the VM now.",
    .example = "drover vm list\ndrover vm list --host h1 --watch",
    .flags = list_flags,
    .run = list_run,
};
static const struct command vm_show = {
    .path = "vm show",
    .arguments = "VM",
    .kind = COMMAND_WATCH,
    .summary = "one VM: definition, state, load",
    .example = "drover vm show web-1\ndrover vm show web-1 -o json",
    .run = show_run,
};
static const struct flag start_flags[] = {
    {"host", 0, FLAG_TEXT, .value = "HOST",
        .help = "start it there; else where a move took its disks, or where the optimizer says"},
    {NULL},
};
static const struct command vm_start = {
    .path = "vm start",
    .arguments = "VM",
    .kind = COMMAND_JOB,
    .summary = "start a VM",
    .example = "drover vm start web-1\ndrover vm start web-1 --host h2",
    .flags = start_flags,
    .run = start_run,
};
static const struct flag stop_flags[] = {
    {"force", 0, FLAG_SWITCH, .help = "end it at once, like pulling the plug"},
    {"grace", 0, FLAG_UINT, .value = "SECONDS", .min = 1, .max = 3600,
        .help = "how long the guest may take before it is ended (30)"},
    {NULL},
};
static const struct command vm_stop = {
    .path = "vm stop",
    .arguments = "VM",
    .kind = COMMAND_JOB,
    .summary = "stop a VM",
    .text = "The guest is asked to shut down, as by its power button, and ended when it has not done so in time.\n"
            "If that is too long: 'drover job cancel' frees the VM, and --force then ends it.",
    .example = "drover vm stop web-1\ndrover vm stop web-1 --force",
    .flags = stop_flags,
    .run = stop_run,
};
static const struct command vm_delete = {
    .path = "vm delete",
    .arguments = "VM",
    .kind = COMMAND_JOB,
    .summary = "delete a stopped VM; its disks stay",
    .text = "The definition goes, the files of its disks stay where they are.",
    .example = "drover vm stop web-1\ndrover vm delete web-1",
    .run = delete_run,
};

const struct command *const cmd_vm[] = {&vm_list, &vm_show, &cmd_vm_create, &cmd_vm_set, &vm_start, &vm_stop,
    &vm_delete, &cmd_vm_migrate, &cmd_vm_move_storage, &cmd_vm_console, NULL};
