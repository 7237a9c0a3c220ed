/* drover vm create */
#include <stdio.h>

#include "base/mac.h"
#include "cli/cmd_vm.h"
#include "proto/limits.h"

#define DEVICES_MAX 16

/* Takes the next part of "a,b,c" off `*text`; false at the end. */
static bool next_part(const char **text, char *out, size_t size)
{
    if (!*text)
        return false;
    size_t len = strcspn(*text, ",");
    snprintf(out, size, "%.*s", (int)len, *text);
    *text = (*text)[len] ? *text + len + 1 : NULL;
    return true;
}

int vm_disk_parse(const char *text, struct err *err, Drover__Disk *out)
{
    Drover__Disk disk = DROVER__DISK__INIT;
    char path[1024], part[64], format[16] = "raw", cache[16] = "", aio[16] = "";
    if (strlen(text) >= sizeof path)
        return err_set(err, ERR_INVALID, "disk: the path is too long");
    next_part(&text, path, sizeof path);
    while (next_part(&text, part, sizeof part)) {
        if (strcmp(part, "format=raw") == 0 || strcmp(part, "format=qcow2") == 0)
            snprintf(format, sizeof format, "%.15s", part + strlen("format="));
        else if (strcmp(part, "read-only") == 0)
            disk.read_only = true;
        else if (strcmp(part, "cache=writeback") == 0 || strcmp(part, "cache=none") == 0)
            snprintf(cache, sizeof cache, "%.15s", part + strlen("cache="));
        else if (strcmp(part, "aio=threads") == 0 || strcmp(part, "aio=native") == 0 ||
                 strcmp(part, "aio=io_uring") == 0)
            snprintf(aio, sizeof aio, "%.15s", part + strlen("aio="));
        else
            return err_set(err, ERR_INVALID,
                "disk %.200s: '%s' is none of format=raw|qcow2, read-only, cache=writeback|none, "
                "aio=threads|native|io_uring",
                path, part);
    }
    if (path[0] != '/')
        return err_set(err, ERR_INVALID,
            "disk '%.200s': the path must begin with '/': the hosts open it, on storage that all of them reach", path);
    disk.path = mem_strdup(path);
    disk.format = mem_strdup(format);
    disk.cache = mem_strdup(cache);
    disk.aio = mem_strdup(aio);
    *out = disk;
    return 0;
}

void vm_disk_free(Drover__Disk *disk)
{
    free(disk->path);
    free(disk->format);
    free(disk->cache);
    free(disk->aio);
}

int vm_nic_parse(const char *text, struct err *err, Drover__Nic *out)
{
    Drover__Nic nic = DROVER__NIC__INIT;
    char network[64], part[64], mac[32] = "";
    uint8_t bytes[MAC_BYTES];
    if (strcspn(text, ",") >= sizeof network)
        return err_set(err, ERR_INVALID, "nic: the network's name is too long");
    next_part(&text, network, sizeof network);
    while (next_part(&text, part, sizeof part)) {
        if (strncmp(part, "mac=", 4) != 0)
            return err_set(err, ERR_INVALID, "nic %s: '%s' is not mac=MAC", network, part);
        if (!mac_parse(part + 4, bytes))
            return err_set(err, ERR_INVALID, "nic %s: '%s' is not the address of one station, like 52:54:00:12:34:56",
                network, part + 4);
        snprintf(mac, sizeof mac, "%.17s", part + 4);
    }
    nic.network = mem_strdup(strcmp(network, "default") == 0 ? "" : network);
    nic.mac = mem_strdup(mac);
    *out = nic;
    return 0;
}

void vm_nic_free(Drover__Nic *nic)
{
    free(nic->network);
    free(nic->mac);
}

/* The definition with the arrays it points to. */
struct draft {
    Drover__VmSpec spec;
    Drover__Disk disks[DEVICES_MAX], *disk_list[DEVICES_MAX];
    Drover__Nic nics[DEVICES_MAX], *nic_list[DEVICES_MAX];
};

static void draft_free(struct draft *draft)
{
    for (size_t i = 0; i < draft->spec.n_disks; i++)
        vm_disk_free(&draft->disks[i]);
    for (size_t i = 0; i < draft->spec.n_nics; i++)
        vm_nic_free(&draft->nics[i]);
}

static int draft_devices(struct draft *draft, const struct args *args, struct err *err)
{
    const char *text;
    for (size_t at = 0; (text = args_next(args, "disk", &at)) != NULL; draft->spec.n_disks++) {
        size_t i = draft->spec.n_disks;
        if (i == DEVICES_MAX)
            return err_set(err, ERR_INVALID, "more than %d disks", DEVICES_MAX);
        if (vm_disk_parse(text, err, &draft->disks[i]) < 0)
            return -1;
        draft->disk_list[i] = &draft->disks[i];
    }
    for (size_t at = 0; (text = args_next(args, "nic", &at)) != NULL; draft->spec.n_nics++) {
        size_t i = draft->spec.n_nics;
        if (i == DEVICES_MAX)
            return err_set(err, ERR_INVALID, "more than %d NICs", DEVICES_MAX);
        if (vm_nic_parse(text, err, &draft->nics[i]) < 0)
            return -1;
        draft->nic_list[i] = &draft->nics[i];
    }
    draft->spec.disks = draft->disk_list;
    draft->spec.nics = draft->nic_list;
    return 0;
}

static void set_text(const struct args *args, const char *flag, char **field)
{
    if (args_on(args, flag))
        *field = (char *)args_text(args, flag); /* lent; protobuf-c does not know const */
}

static int draft_make(struct draft *draft, const struct args *args, struct err *err)
{
    Drover__VmSpec *spec = &draft->spec;
    drover__vm_spec__init(spec);
    spec->name = (char *)args->words[0];
    spec->vcpus = (uint32_t)args_number(args, "vcpus", 1);
    spec->memory_bytes = args_number(args, "memory", 0);
    vm_policy_read(args, "migration-mode", spec);
    spec->balloon = args_on(args, "balloon");
    set_text(args, "kernel", &spec->kernel);
    set_text(args, "initrd", &spec->initrd);
    set_text(args, "cmdline", &spec->cmdline);
    set_text(args, "cpu-model", &spec->cpu_model);
    set_text(args, "machine", &spec->machine_type);
    return draft_devices(draft, args, err);
}

static int create_run(struct cli *cli, const struct args *args, struct err *err)
{
    struct draft draft = {0};
    int status = draft_make(&draft, args, err);
    if (status < 0) {
        err_wrap(err, "vm create %.64s", args->words[0]);
    } else {
        Drover__VmCreateRequest request = DROVER__VM_CREATE_REQUEST__INIT;
        request.spec = &draft.spec;
        request.start = args_on(args, "start");
        set_text(args, "host", &request.host);
        status = cli_submit(cli, args, DROVER__METHOD__VM_CREATE, &request.base, draft.spec.name, NULL, err);
    }
    draft_free(&draft);
    return status;
}

static const struct flag create_flags[] = {
    {"memory", 'm', FLAG_SIZE, .required = true, .value = "SIZE", .min = 1 << 20, .max = 1ull << 44,
        .help = "e.g. 512M or 4G"},
    {"vcpus", 'c', FLAG_UINT, .value = "N", .min = 1, .max = 255, .help = "processors of the guest (1)"},
    {"disk", 'd', FLAG_TEXT, .repeat = true, .value = "PATH[,OPTION...]",
        .help = "a file every host reaches; the first one boots. Options: format=raw|qcow2, read-only, "
                "cache=writeback|none, aio=threads|native|io_uring (the last two with cache=none)"},
    {"nic", 'n', FLAG_TEXT, .repeat = true, .value = "NETWORK[,mac=MAC]",
        .help = "a network adapter; 'default' is the hosts' default network"},
    {"kernel", 0, FLAG_TEXT, .value = "PATH", .help = "boot this kernel, without firmware or boot loader"},
    {"initrd", 0, FLAG_TEXT, .value = "PATH", .help = "with this initramfs"},
    {"cmdline", 0, FLAG_TEXT, .value = "TEXT", .help = "and this command line"},
    {"balloon", 0, FLAG_SWITCH, .help = "the guest gives back memory that it does not use (virtio-balloon)"},
    {"cpu-model", 0, FLAG_TEXT, .value = "MODEL",
        .help = "QEMU's name; else what 'drover cluster cpu' shows as the default"},
    {"machine", 0, FLAG_TEXT, .value = "TYPE", .help = "e.g. pc-q35-7.2; else the newest that all hosts have"},
    {"max-downtime", 0, FLAG_UINT, .value = "MS", .min = 1, .max = LIMITS_DOWNTIME_MS,
        .help = "longest blackout of its migrations (30)"},
    {"migration-mode", 0, FLAG_CHOICE, .value = VM_POLICY_MODES,
        .help = "when memory travels in its moves (precopy): 'drover help vm migrate' explains the modes"},
    {"on-no-convergence", 0, FLAG_CHOICE, .value = VM_POLICY_STUCK, .help = VM_POLICY_STUCK_HELP},
    {"host", 0, FLAG_TEXT, .value = "HOST", .help = "put it there; else the optimizer chooses when it starts"},
    {"start", 0, FLAG_SWITCH, .help = "and start it"},
    {NULL},
};

const struct command cmd_vm_create = {
    .path = "vm create",
    .arguments = "NAME",
    .kind = COMMAND_JOB,
    .summary = "define a VM, and start it with --start",
    .text = "Paths are paths on the hosts, on storage that all of them reach: the VM can then run on any of them. "
            "Disks are files\n"
            "that exist already. Without --kernel the firmware boots the first disk.",
    .example = "drover vm create web-1 --memory 512M --vcpus 2 --disk "
               "/srv/vms/web-1.qcow2,format=qcow2 --nic default --start\n"
               "drover vm create test --memory 256M --kernel /srv/vms/vmlinuz --initrd /srv/vms/initrd --cmdline "
               "'console=ttyS0' --start",
    .flags = create_flags,
    .run = create_run,
};
