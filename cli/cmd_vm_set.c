/* drover vm set, and how a VM is moved: its flags, and how it is shown. */
#include <inttypes.h>

#include "cli/cmd_vm.h"
#include "proto/limits.h"
#include "proto/pbjson.h"

/* The value of the enum that is shown as `word`; 0 when no word is given. That the word is one of them has been
 * checked where the flags are read. */
static int enum_of(const ProtobufCEnumDescriptor *type, const char *word)
{
    char name[64];
    for (unsigned i = 0; word && i < type->n_values; i++)
        if (strcmp(pbjson_enum(type, type->values[i].value, name), word) == 0)
            return type->values[i].value;
    return 0;
}

void vm_policy_read(const struct args *args, const char *mode_flag, Drover__VmSpec *out)
{
    out->max_downtime_ms = (uint32_t)args_number(args, "max-downtime", 0);
    out->migration_mode =
        (Drover__MigrationMode)enum_of(&drover__migration_mode__descriptor, args_text(args, mode_flag));
    out->on_no_convergence =
        (Drover__MigrationStuck)enum_of(&drover__migration_stuck__descriptor, args_text(args, "on-no-convergence"));
}

void vm_policy_print(const Drover__VmSpec *spec)
{
    char mode[64], stuck[64];
    bool automatic = spec->migration_mode == DROVER__MIGRATION_MODE__MIGRATION_MODE_AUTO;
    pbjson_enum(&drover__migration_mode__descriptor, (int)spec->migration_mode, mode);
    pbjson_enum(&drover__migration_stuck__descriptor, (int)spec->on_no_convergence, stuck);
    output_field("Migration", "%s, at most %" PRIu32 " ms dark; when the guest writes too fast: %s",
        spec->migration_mode ? mode : "precopy",
        spec->max_downtime_ms ? spec->max_downtime_ms : LIMITS_DOWNTIME_DEFAULT_MS,
        spec->on_no_convergence ? stuck
        : automatic             ? "postcopy"
                                : "cancel");
}

static int set_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__VmSetRequest request = DROVER__VM_SET_REQUEST__INIT;
    Drover__VmSpec policy = DROVER__VM_SPEC__INIT;
    vm_policy_read(args, "migration-mode", &policy);
    request.name = (char *)args->words[0];
    request.max_downtime_ms = policy.max_downtime_ms;
    request.migration_mode = policy.migration_mode;
    request.on_no_convergence = policy.on_no_convergence;
    return cli_submit(cli, args, DROVER__METHOD__VM_SET, &request.base, request.name, NULL, err);
}

static const struct flag set_flags[] = {
    {"max-downtime", 0, FLAG_UINT, .value = "MS", .min = 1, .max = LIMITS_DOWNTIME_MS, .help = "longest blackout"},
    {"migration-mode", 0, FLAG_CHOICE, .value = VM_POLICY_MODES,
        .help = "when memory travels: 'drover help vm migrate' explains the modes"},
    {"on-no-convergence", 0, FLAG_CHOICE, .value = VM_POLICY_STUCK, .help = VM_POLICY_STUCK_HELP},
    {NULL},
};

const struct command cmd_vm_set = {
    .path = "vm set",
    .arguments = "VM",
    .kind = COMMAND_JOB,
    .summary = "say how a VM is to be moved",
    .text = "It applies to every move of the VM from now on, whoever makes it: 'vm migrate', unless its own flags say\n"
            "otherwise, the optimizer, and evacuations. What is not "
            "given stays as it is. 'vm show' shows it; 'drover help\n"
            "vm migrate' says what modes mean, and what post-copy risks.",
    .example = "drover vm set web-1 --max-downtime 10 --on-no-convergence throttle\n"
               "drover vm set batch-1 --migration-mode auto",
    .flags = set_flags,
    .run = set_run,
};
