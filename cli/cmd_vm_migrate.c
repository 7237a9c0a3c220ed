/* drover vm migrate */
#include <stdio.h>
#include <string.h>

#include "cli/cmd_vm.h"
#include "cli/show.h"
#include "proto/limits.h"

static void summary_print(const Drover__Job *job)
{
    if (!job->migration || !job->migration->to_host[0])
        return;
    putchar('\n');
    if (job->kind == DROVER__JOB_KIND__JOB_VM_FORECAST)
        show_forecast(job->migration->forecast);
    else
        show_migration(job->migration);
}

/* Says the one risk of post-copy before it starts. What the move leaves open, the VM's definition says. */
static int warn_of_postcopy(
    struct cli *cli, const struct args *args, const Drover__MigrationOptions *o, struct err *err)
{
    Drover__VmListReply *reply;
    if (vm_fetch(cli, args, args->words[0], NULL, err, &reply) < 0)
        return -1;
    Drover__VmSpec none = DROVER__VM_SPEC__INIT;
    const Drover__VmSpec *spec = reply->n_vms == 1 && reply->vms[0]->spec ? reply->vms[0]->spec : &none;
    Drover__MigrationMode mode = o->mode ? o->mode : spec->migration_mode;
    Drover__MigrationStuck then = o->on_no_convergence ? o->on_no_convergence : spec->on_no_convergence;
    drover__vm_list_reply__free_unpacked(reply, NULL);
    bool will = mode >= DROVER__MIGRATION_MODE__MIGRATION_MODE_HYBRID;
    bool stuck = then == DROVER__MIGRATION_STUCK__MIGRATION_STUCK_POSTCOPY ||
                 (mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO &&
                     then != DROVER__MIGRATION_STUCK__MIGRATION_STUCK_CANCEL);
    if (will || stuck)
        fprintf(stderr,
            "drover: the guest %s run on the destination before all of its memory is there. Until it is, losing the\n"
            "        source host loses the guest; a lost connection is waited for. It cannot be cancelled then.\n",
            will ? "will" : "may");
    return 0;
}

static int migrate_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__VmMigrateRequest request = DROVER__VM_MIGRATE_REQUEST__INIT;
    Drover__MigrationOptions options = DROVER__MIGRATION_OPTIONS__INIT;
    request.name = (char *)args->words[0];
    request.options = &options;
    if (args_on(args, "to"))
        request.to_host = (char *)args_text(args, "to");
    if (args_on(args, "reason"))
        request.reason = (char *)args_text(args, "reason");
    options.with_storage = args_on(args, "with-storage");
    options.keep_source = args_on(args, "keep-source");
    if (args_on(args, "storage-to"))
        options.storage_directory = (char *)args_text(args, "storage-to");
    options.verify = args_on(args, "verify");
    options.max_rounds = (uint32_t)args_number(args, "max-rounds", 0);
    options.bandwidth_bytes_per_s = args_number(args, "bandwidth", 0);
    Drover__VmSpec policy = DROVER__VM_SPEC__INIT;
    vm_policy_read(args, "mode", &policy);
    options.max_downtime_ms = policy.max_downtime_ms;
    options.mode = policy.migration_mode;
    options.on_no_convergence = policy.on_no_convergence;
    if (args_on(args, "tracker"))
        options.tracker = (char *)args_text(args, "tracker");
    request.dry_run = args_on(args, "dry-run");
    if (!request.dry_run && warn_of_postcopy(cli, args, &options, err) < 0)
        return -1;
    return cli_submit(cli, args, DROVER__METHOD__VM_MIGRATE, &request.base, request.name, summary_print, err);
}

static const struct flag migrate_flags[] = {
    {"to", 0, FLAG_TEXT, .value = "HOST", .help = "where to; else the optimizer chooses"},
    {"max-downtime", 0, FLAG_UINT, .value = "MS", .min = 1, .max = LIMITS_DOWNTIME_MS,
        .help = "longest blackout; else what the VM's definition says"},
    {"bandwidth", 0, FLAG_SIZE, .value = "BYTES/S", .min = LIMITS_BANDWIDTH_MIN, .max = LIMITS_BYTES_PER_S,
        .help = "send no faster, e.g. 50M; at least 1M"},
    {"max-rounds", 0, FLAG_UINT, .value = "N", .min = 1, .max = 1000, .help = "give up after so many rounds"},
    {"mode", 0, FLAG_CHOICE, .value = VM_POLICY_MODES,
        .help = "when memory travels, see above; else what the VM's definition says"},
    {"on-no-convergence", 0, FLAG_CHOICE, .value = VM_POLICY_STUCK, .help = VM_POLICY_STUCK_HELP "; likewise"},
    {"dry-run", 0, FLAG_SWITCH, .help = "watch the guest for a few seconds, say how it would go, and move nothing"},
    {"with-storage", 0, FLAG_SWITCH, .help = "take along the disks the guest writes to: nothing needs to be shared"},
    {"storage-to", 0, FLAG_TEXT, .value = "DIRECTORY",
        .help = "where they go on the destination; else under the paths they have"},
    {"keep-source", 0, FLAG_SWITCH, .help = "keep their old files on the source"},
    {"tracker", 0, FLAG_CHOICE, .value = "auto|wp-async|wp-sync|qemu",
        .help = "who tells what the guest writes; else the best that the source host can"},
    {"verify", 0, FLAG_SWITCH,
        .help =
            "compare all of memory on both sides at the switch; makes the blackout longer by as much as that takes, "
            "whatever --max-downtime says"},
    {"reason", 0, FLAG_TEXT, .value = "TEXT", .help = "why, for the record of the job"},
    {NULL},
};

const struct command cmd_vm_migrate = {
    .path = "vm migrate",
    .arguments = "VM",
    .kind = COMMAND_JOB,
    .summary = "move a running VM to another host while it goes on",
    .text =
        "Memory is sent in rounds while the guest runs; when what "
        "is left fits into the longest allowed blackout, the guest\n"
        "stops on the one host and goes on on the other. If "
        "anything fails before that, or the job is cancelled, the guest\n"
        "simply goes on where it is. Connections of the guest survive.\n"
        "With --with-storage nothing needs to be shared: the disks "
        "go the same way, before memory, while the guest writes.\n"
        "\nModes say when memory travels:\n"
        "  precopy   all of it before the switch. A guest that writes faster than the network carries does not move.\n"
        "  auto      likewise, and such a guest switches all the same: what is left follows while it runs on the\n"
        "            destination (post-copy).\n"
        "  hybrid    a round or two before the switch, the rest by post-copy: ends soon, however much it writes.\n"
        "  postcopy  only the devices' state before the switch, all of memory after it: leaves the source at once.\n"
        "In post-copy the guest waits a moment for each page it needs that is not there yet, and until the last one\n"
        "is there, losing the source host loses the guest. A lost connection is waited for.\n\n"
        "--on-no-convergence says what follows when the guest writes too fast for pre-copy: 'cancel' gives up and\n"
        "leaves it where it is, 'postcopy' is what mode auto does, and 'throttle' slows its CPUs down, step by step,\n"
        "until it can be switched; whatever happens, they are at full speed again as soon as the migration is over.\n"
        "Where even that does not do, mode auto goes on by post-copy, and the other modes give up.\n\n"
        "Before anything is sent, the guest is watched for a "
        "moment and a forecast is shown: how, how long, how long dark,\n"
        "how many bytes, and why. --dry-run gives just that.",
    .example = "drover vm migrate web-1 --to h2\n"
               "drover vm migrate web-1 --to h2 --dry-run\n"
               "drover vm migrate db-1 --to h2 --mode auto\n"
               "drover vm migrate web-1 --max-downtime 10 --reason 'h1 gets new memory'",
    .flags = migrate_flags,
    .run = migrate_run,
};
