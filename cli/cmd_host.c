/* drover host: the machines that run the VMs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/format.h"
#include "cli/cli.h"
#include "cli/keyarg.h"
#include "cli/show.h"
#include "proto/pbjson.h"

static int fetch(struct cli *cli, const struct args *args, const char *name, const char *after, struct err *err,
    Drover__HostListReply **out)
{
    Drover__HostListRequest request = DROVER__HOST_LIST_REQUEST__INIT;
    Drover__ReadOptions read;
    request.read = cli_read_options(args, &read);
    request.name = (char *)(name ? name : "");
    request.after = (char *)(after ? after : "");
    if (cli_call(cli, DROVER__METHOD__HOST_LIST, &request.base, &drover__host_list_reply__descriptor, err, out) < 0)
        return err_wrap(err, "%s%s%s", args->command->path, name ? " " : "", name ? name : "");
    return 0;
}

static void row_add(struct table *table, const Drover__Host *host)
{
    static const Drover__HostFacts no_facts = DROVER__HOST_FACTS__INIT;
    static const Drover__Capacity no_capacity = DROVER__CAPACITY__INIT;
    static const Drover__Load no_load = DROVER__LOAD__INIT;
    const Drover__HostFacts *facts = host->facts ? host->facts : &no_facts;
    const Drover__Capacity *capacity = facts->capacity ? facts->capacity : &no_capacity;
    const Drover__Load *load = host->load ? host->load : &no_load;
    char text[SHOW_SHARE_MAX];
    table_add(table, "%s", host->name);
    table_add(table, "%s%s%s", pbjson_enum(&drover__host_state__descriptor, (int)host->state, text),
        host->shutting_down ? ", shutting down" : "", host->maintenance ? ", maintenance" : "");
    table_add(table, "%" PRIu32, host->vms);
    table_add(table, "%s", show_cores(load->cpu_cores, capacity->cpu_cores, text));
    if (capacity->cpu_cores > 0)
        table_add(table, "%.0f%%", load->cpu_cores / capacity->cpu_cores * 100);
    else
        table_add(table, "-");
    table_add(table, "%s", show_bytes(load->memory_bytes, capacity->memory_bytes, text));
    table_add(table, "%.0f", load->disk_read_iops + load->disk_write_iops);
    table_add(table, "%s", facts->migration_address);
    table_add(table, "%s", facts->accelerator);
}

static int list_run(struct cli *cli, const struct args *args, struct err *err)
{
    static const char *const columns[] = {
        "NAME", "STATE", ">VMS", ">CPU", ">CPU%", ">MEMORY", ">IOPS", "ADDRESS", "ACCEL", NULL};
    struct table *table = cli->format == OUTPUT_TABLE ? table_new(columns) : NULL;
    json_t *array = json_array();
    char *after = NULL;
    bool more = true;
    while (more) {
        Drover__HostListReply *reply;
        if (fetch(cli, args, NULL, after, err, &reply) < 0)
            break;
        for (size_t i = 0; i < reply->n_hosts; i++)
            if (table)
                row_add(table, reply->hosts[i]);
            else
                json_array_append_new(array, pbjson(&reply->hosts[i]->base));
        free(after);
        after = reply->n_hosts ? mem_strdup(reply->hosts[reply->n_hosts - 1]->name) : NULL;
        more = reply->more && after;
        drover__host_list_reply__free_unpacked(reply, NULL);
    }
    free(after);
    return cli_list_end(cli, table, array, !more, "no hosts yet; 'drover help host add' shows how to add one");
}

static void load_print(const char *name, const Drover__Load *load, const Drover__Capacity *capacity)
{
    char cpu[SHOW_SHARE_MAX], memory[SHOW_SHARE_MAX], rx[FORMAT_MAX], tx[FORMAT_MAX];
    output_field(name, "%s cores, %s, %.0f reads/s, %.0f writes/s, %s/s in, %s/s out",
        show_cores(load->cpu_cores, capacity ? capacity->cpu_cores : 0, cpu),
        show_bytes(load->memory_bytes, capacity ? capacity->memory_bytes : 0, memory), load->disk_read_iops,
        load->disk_write_iops, format_bytes((uint64_t)load->net_rx_bytes_per_s, rx),
        format_bytes((uint64_t)load->net_tx_bytes_per_s, tx));
}

static void facts_print(const Drover__HostFacts *facts)
{
    output_field("Address", "%s", facts->migration_address);
    output_field("Kernel", "%s", facts->kernel);
    output_field("Hypervisor", "%s, %s", facts->hypervisor, facts->accelerator);
    if (facts->accelerator_reason[0])
        output_field("Accelerator", "%s: %s", facts->accelerator, facts->accelerator_reason);
    output_field("Tracker", "%s", facts->tracker);
    if (facts->link_bytes_per_s)
        output_field("Link", "%s/s", format_bytes(facts->link_bytes_per_s, (char[FORMAT_MAX]){0}));
    output_field("Program", "%s", facts->program);
}

static void host_print(const Drover__Host *host)
{
    char text[64];
    output_field("Host", "%s", host->name);
    output_field("State", "%s%s%s", pbjson_enum(&drover__host_state__descriptor, (int)host->state, text),
        host->shutting_down ? ", being shut down: its guests are asked to end, and it gets no VMs until it is up again"
                            : "",
        host->maintenance ? ", in maintenance: it gets no VMs" : "");
    if (host->refused[0])
        output_field("Refused", "%s", host->refused);
    output_field("VMs", "%" PRIu32, host->vms);
    if (host->load)
        load_print("Load", host->load, host->facts ? host->facts->capacity : NULL);
    if (host->peak)
        load_print("Peak", host->peak, NULL);
    if (host->state == DROVER__HOST_STATE__HOST_UP)
        output_field("Lease", "%s left", format_duration_ms(host->lease_left_ms, text));
    if (host->facts)
        facts_print(host->facts);
    output_field("Key", "%s", host->public_key);
    output_field("Added", "%s", show_time(host->added_ms, text));
}

static int show_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__HostListReply *reply;
    if (fetch(cli, args, args->words[0], NULL, err, &reply) < 0)
        return -1;
    int status = 0;
    if (reply->n_hosts != 1)
        status =
            err_set(err, ERR_NOT_FOUND, "host %s: there is none; 'drover host list' shows the hosts", args->words[0]);
    else if (cli->format == OUTPUT_TABLE)
        host_print(reply->hosts[0]);
    else
        output_message(cli->format, &reply->hosts[0]->base);
    drover__host_list_reply__free_unpacked(reply, NULL);
    return status;
}

static int add_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__HostAddRequest request = DROVER__HOST_ADD_REQUEST__INIT;
    char key[KEY_TEXT];
    if (keyarg_read(args_text(args, "key"), err, key) < 0)
        return err_wrap(err, "host add %s", args->words[0]);
    request.name = (char *)args->words[0];
    request.public_key = key;
    return cli_submit(cli, args, DROVER__METHOD__HOST_ADD, &request.base, request.name, NULL, err);
}

static int remove_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__HostRemoveRequest request = DROVER__HOST_REMOVE_REQUEST__INIT;
    request.name = (char *)args->words[0];
    request.dead = args_on(args, "dead");
    return cli_submit(cli, args, DROVER__METHOD__HOST_REMOVE, &request.base, request.name, NULL, err);
}

static int set_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__HostSetRequest request = DROVER__HOST_SET_REQUEST__INIT;
    request.name = (char *)args->words[0];
    request.maintenance = strcmp(args_text(args, "maintenance"), "on") == 0;
    return cli_submit(cli, args, DROVER__METHOD__HOST_SET, &request.base, request.name, NULL, err);
}

static int evacuate_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__HostEvacuateRequest request = DROVER__HOST_EVACUATE_REQUEST__INIT;
    request.name = (char *)args->words[0];
    if (args_on(args, "reason"))
        request.reason = (char *)args_text(args, "reason");
    return cli_submit(cli, args, DROVER__METHOD__HOST_EVACUATE, &request.base, request.name, NULL, err);
}

static const struct command host_list = {
    .path = "host list",
    .kind = COMMAND_WATCH,
    .summary = "all hosts with their load",
    .example = "drover host list\ndrover host list --watch",
    .run = list_run,
};
static const struct command host_show = {
    .path = "host show",
    .arguments = "HOST",
    .kind = COMMAND_WATCH,
    .summary = "one host: load, peak, kernel, hypervisor, lease",
    .example = "drover host show h1",
    .run = show_run,
};
static const struct flag add_flags[] = {
    {"key", 0, FLAG_TEXT, .required = true, .value = "FILE|KEY",
        .help = "its public key: the .pub file, or the 40 characters"},
    {NULL},
};
static const struct command host_add = {
    .path = "host add",
    .arguments = "NAME",
    .kind = COMMAND_JOB,
    .summary = "let a host into the cluster",
    .text = "On the host: 'drover keygen /etc/drover/host', a "
            "configuration for drover-hostd, and start it. It is known by its\n"
            "key: until this command has told the controllers of it, they do not answer it at all.",
    .example = "drover host add h4 --key h4.pub",
    .flags = add_flags,
    .run = add_run,
};
static const struct flag remove_flags[] = {
    {"dead", 0, FLAG_SWITCH,
        .help = "I vouch that its machine is off and stays off: free its VMs. IF ONE STILL RUNS THERE AND IS STARTED "
                "ELSEWHERE, BOTH WRITE TO ITS DISKS AND DESTROY THEM"},
    {NULL},
};
static const struct command host_remove = {
    .path = "host remove",
    .arguments = "HOST",
    .kind = COMMAND_JOB,
    .summary = "take a host out of the cluster",
    .text =
        "It must own no VMs: 'drover host evacuate' moves them off it, 'drover vm list' shows them. Its key is worth\n"
        "nothing afterwards. A host that is not heard keeps its VMs, for it may still run them, and the controllers\n"
        "cannot know. With --dead its VMs are stopped, by your word: 'drover vm start' starts those whose disks\n"
        "another host reaches (with --host, where a move had taken them to this one), 'drover vm delete' forgets "
        "those\n"
        "whose disks are gone with it. Switch its machine off first, or pull its plug. A host that is heard is\n"
        "refused, and so is one with a VM that a job holds.",
    .example = "drover vm migrate web-1 --to h2\ndrover host remove h1\ndrover host remove h2 --dead",
    .flags = remove_flags,
    .run = remove_run,
};

static const struct flag set_flags[] = {
    {"maintenance", 0, FLAG_CHOICE, .required = true, .value = "on|off", .help = "on: it gets no VMs any more"},
    {NULL},
};
static const struct command host_set = {
    .path = "host set",
    .arguments = "HOST",
    .kind = COMMAND_JOB,
    .summary = "put a host into maintenance, or take it out of it",
    .text = "In maintenance a host gets no VMs; those it has go on. 'drover host evacuate' moves them off it, too.",
    .example = "drover host set h1 --maintenance off",
    .flags = set_flags,
    .run = set_run,
};
static const struct flag evacuate_flags[] = {
    {"reason", 0, FLAG_TEXT, .value = "TEXT", .help = "why, for the record of the job"},
    {NULL},
};
static const struct command host_evacuate = {
    .path = "host evacuate",
    .arguments = "HOST",
    .kind = COMMAND_JOB,
    .summary = "put a host into maintenance and move all running VMs off it",
    .text =
        "The optimizer chooses where each VM goes. The moves are jobs of their own; as many are at work at once as\n"
        "'drover cluster status' shows. Cancelling the job makes no more moves, lets those that send go on to their\n"
        "end, and takes the host out of maintenance again. If a VM cannot be moved, the job fails and names it, and\n"
        "the host stays in maintenance.",
    .example = "drover host evacuate h1 --reason 'new memory'\ndrover host set h1 --maintenance off",
    .flags = evacuate_flags,
    .run = evacuate_run,
};

const struct command *const cmd_host[] = {
    &host_list, &host_show, &host_add, &host_remove, &host_set, &host_evacuate, NULL};
