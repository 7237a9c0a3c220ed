/* drover cluster: the whole, and the controllers it is made of. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/address.h"
#include "cli/cli.h"
#include "cli/keyarg.h"
#include "cli/show.h"

extern const struct command cmd_cluster_cpu; /* in a file of its own */

static int status_fetch(struct cli *cli, const struct args *args, struct err *err, Drover__ClusterStatusReply **out)
{
    Drover__ClusterStatusRequest request = DROVER__CLUSTER_STATUS_REQUEST__INIT;
    Drover__ReadOptions read;
    request.read = cli_read_options(args, &read);
    if (cli_call(cli, DROVER__METHOD__CLUSTER_STATUS, &request.base, &drover__cluster_status_reply__descriptor, err,
            out) < 0)
        return err_wrap(err, "%s", args->command->path);
    return 0;
}

static void members_print(const Drover__ClusterStatusReply *reply)
{
    static const char *const columns[] = {"MEMBER", "ROLE", "LEADER", "API ADDRESS", "RAFT ADDRESS", NULL};
    struct table *table = table_new(columns);
    for (size_t i = 0; i < reply->n_members; i++) {
        const Drover__Member *m = reply->members[i];
        table_add(table, "%s", m->name);
        table_add(table, "%s%s", m->role, m->lost_its_log ? ", lost its log" : "");
        table_add(table, "%s", m->leader ? "yes" : "");
        table_add(table, "%s", m->api_address);
        table_add(table, "%s", m->raft_address);
    }
    table_print(table, "no members");
    for (size_t i = 0; i < reply->n_members; i++)
        if (reply->members[i]->lost_its_log)
            printf("%s has lost its log and gets nothing: stop it, remove it (drover cluster member remove %s), empty "
                   "its directory, and add it again\n",
                reply->members[i]->name, reply->members[i]->name);
}

static void status_print(const Drover__ClusterStatusReply *r)
{
    char text[SHOW_SHARE_MAX];
    output_field("Leader", "%s", r->leader[0] ? r->leader : "none known");
    output_field("Answered by", "%s", r->answered_by);
    output_field(
        "Log", "term %" PRIu64 ", committed %" PRIu64 ", applied %" PRIu64, r->term, r->commit_index, r->applied_index);
    if (strcmp(r->leader, r->answered_by) == 0)
        output_field("Hosts", "%" PRIu32 " up of %" PRIu32, r->hosts_up, r->hosts);
    else
        output_field("Hosts", "%" PRIu32 "; which are up only a leader knows", r->hosts);
    if (r->vms_unknown)
        output_field("VMs", "%" PRIu32 " running of %" PRIu32 ", %" PRIu32 " unknown (their hosts are not heard here)",
            r->vms_running, r->vms, r->vms_unknown);
    else
        output_field("VMs", "%" PRIu32 " running of %" PRIu32, r->vms_running, r->vms);
    output_field("Active jobs", "%" PRIu32, r->jobs_active);
    if (r->limits)
        output_field("Migrations", "at most %" PRIu32 " out of a host, %" PRIu32 " into one, %" PRIu32 " between two",
            r->limits->outgoing, r->limits->incoming, r->limits->link);
    output_field("Optimizer", "%s", r->optimizer_automatic ? "automatic" : "only when asked");
    if (r->capacity && r->load) {
        output_field("CPU", "%s cores", show_cores(r->load->cpu_cores, r->capacity->cpu_cores, text));
        output_field("Memory", "%s", show_bytes(r->load->memory_bytes, r->capacity->memory_bytes, text));
        output_field("Disk", "%.0f IOPS", r->load->disk_read_iops + r->load->disk_write_iops);
    }
    putchar('\n');
    members_print(r);
}

static int status_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__ClusterStatusReply *reply;
    if (status_fetch(cli, args, err, &reply) < 0)
        return -1;
    if (cli->format == OUTPUT_TABLE)
        status_print(reply);
    else
        output_message(cli->format, &reply->base);
    drover__cluster_status_reply__free_unpacked(reply, NULL);
    return 0;
}

static int member_list_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__ClusterStatusReply *reply;
    if (status_fetch(cli, args, err, &reply) < 0)
        return -1;
    if (cli->format == OUTPUT_TABLE)
        members_print(reply);
    else
        output_messages(cli->format, reply->n_members, (const ProtobufCMessage *const *)reply->members);
    drover__cluster_status_reply__free_unpacked(reply, NULL);
    return 0;
}

static int member_add_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__MemberAddRequest request = DROVER__MEMBER_ADD_REQUEST__INIT;
    char key[KEY_TEXT];
    struct address address;
    if (address_parse(args_text(args, "raft-address"), err, &address) < 0 ||
        address_parse(args_text(args, "api-address"), err, &address) < 0 ||
        keyarg_read(args_text(args, "key"), err, key) < 0)
        return err_wrap(err, "%s %s", args->command->path, args->words[0]);
    request.name = (char *)args->words[0];
    request.public_key = key;
    request.raft_address = (char *)args_text(args, "raft-address");
    request.api_address = (char *)args_text(args, "api-address");
    return cli_submit(cli, args, DROVER__METHOD__MEMBER_ADD, &request.base, request.name, NULL, err);
}

static int member_remove_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__MemberRemoveRequest request = DROVER__MEMBER_REMOVE_REQUEST__INIT;
    request.name = (char *)args->words[0];
    return cli_submit(cli, args, DROVER__METHOD__MEMBER_REMOVE, &request.base, request.name, NULL, err);
}

static int set_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__ClusterSetRequest request = DROVER__CLUSTER_SET_REQUEST__INIT;
    Drover__MigrationLimits limits = DROVER__MIGRATION_LIMITS__INIT;
    limits.outgoing = (uint32_t)args_number(args, "outgoing", 0);
    limits.incoming = (uint32_t)args_number(args, "incoming", 0);
    limits.link = (uint32_t)args_number(args, "per-link", 0);
    request.limits = &limits;
    return cli_submit(cli, args, DROVER__METHOD__CLUSTER_SET, &request.base, NULL, NULL, err);
}

static const struct flag set_flags[] = {
    {"outgoing", 0, FLAG_UINT, .value = "N", .min = 1, .max = 64, .help = "migrations out of one host at once (2)"},
    {"incoming", 0, FLAG_UINT, .value = "N", .min = 1, .max = 64, .help = "into one host at once (2)"},
    {"per-link", 0, FLAG_UINT, .value = "N", .min = 1, .max = 64, .help = "from one host to another at once (2)"},
    {NULL},
};
static const struct command cluster_set = {
    .path = "cluster set",
    .kind = COMMAND_JOB,
    .summary = "how many migrations may be at work at once",
    .text = "More than that wait, the oldest first. Two keep a link busy: one sends while the other is prepared.",
    .example = "drover cluster set --outgoing 4 --incoming 2",
    .flags = set_flags,
    .run = set_run,
};
static const struct command cluster_status = {
    .path = "cluster status",
    .kind = COMMAND_WATCH,
    .summary = "who leads, what there is, how loaded it is",
    .text = "The first thing to look at. With --stale any controller answers from what it knows, also when none leads.",
    .example = "drover cluster status\ndrover cluster status --stale --watch",
    .run = status_run,
};
static const struct command member_list = {
    .path = "cluster member list",
    .kind = COMMAND_WATCH,
    .summary = "the controllers and their roles",
    .example = "drover cluster member list",
    .run = member_list_run,
};
static const struct flag member_add_flags[] = {
    {"key", 0, FLAG_TEXT, .required = true, .value = "FILE|KEY",
        .help = "its public key: the .pub file, or the 40 characters"},
    {"raft-address", 0, FLAG_TEXT, .required = true, .value = "tcp://IP:PORT",
        .help = "where it takes the log from the others"},
    {"api-address", 0, FLAG_TEXT, .required = true, .value = "tcp://IP:PORT",
        .help = "where it answers commands and hosts"},
    {NULL},
};
static const struct command member_add = {
    .path = "cluster member add",
    .arguments = "NAME",
    .kind = COMMAND_JOB,
    .summary = "add a controller",
    .text = "The new controller is started first, with 'join' in its "
            "configuration, and waits. This lets it in: it gets the\n"
            "log, and has a vote once it has caught up. An odd number "
            "of controllers is best: 3 stand the loss of one, 5 of two.",
    .example = "drover cluster member add c4 --key c4.pub --raft-address tcp://10.0.0.4:7430 --api-address "
               "tcp://10.0.0.4:7420",
    .flags = member_add_flags,
    .run = member_add_run,
};
static const struct command member_remove = {
    .path = "cluster member remove",
    .arguments = "NAME",
    .kind = COMMAND_JOB,
    .summary = "remove a controller",
    .text = "It no longer counts for majorities and may not come back by itself. Stop its program afterwards. Refused "
            "unless most of the members that remain answer: remove those that are dead first.",
    .example = "drover cluster member remove c2",
    .run = member_remove_run,
};

const struct command *const cmd_cluster[] = {
    &cluster_status, &cluster_set, &cmd_cluster_cpu, &member_list, &member_add, &member_remove, NULL};
