/* drover optimizer: what it sees, what it would do, and doing it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static void moves_print(size_t count, Drover__OptimizerMove *const *moves)
{
    for (size_t i = 0; i < count; i++) {
        const Drover__OptimizerMove *m = moves[i];
        printf(
            "%zu. %s: %s -> %s   gain %.3f, about %.1f s\n", i + 1, m->vm, m->from_host, m->to_host, m->gain, m->cost);
        printf("   why:  %s\n", m->reason);
        if (m->runner_up[0])
            printf("   next: %s\n", m->runner_up);
    }
}

static void status_print(const Drover__OptimizerStatusReply *r)
{
    static const char *const columns[] = {"HOST", ">CPU", ">MEMORY", ">IOPS", "VERDICT", NULL};
    output_field("Mode", "%s", r->automatic ? "automatic" : "only when asked ('drover optimizer apply')");
    output_field("Imbalance", "%.3f", r->imbalance);
    output_field("Verdict", "%s", r->verdict);
    putchar('\n');
    struct table *table = table_new(columns);
    for (size_t i = 0; i < r->n_hosts; i++) {
        const Drover__OptimizerHost *h = r->hosts[i];
        table_add(table, "%s", h->name);
        table_add(table, "%.0f%%", h->cpu_utilization * 100);
        table_add(table, "%.0f%%", h->memory_utilization * 100);
        table_add(table, "%.0f%%", h->iops_utilization * 100);
        table_add(table, "%s", h->verdict);
    }
    table_print(table, "no hosts");
    if (r->n_last_moves) {
        printf("\nlast moves:\n");
        moves_print(r->n_last_moves, r->last_moves);
    }
}

static int status_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__OptimizerStatusRequest request = DROVER__OPTIMIZER_STATUS_REQUEST__INIT;
    Drover__OptimizerStatusReply *reply;
    Drover__ReadOptions read;
    request.read = cli_read_options(args, &read);
    if (cli_call(cli, DROVER__METHOD__OPTIMIZER_STATUS, &request.base, &drover__optimizer_status_reply__descriptor, err,
            &reply) < 0)
        return err_wrap(err, "optimizer status");
    if (cli->format == OUTPUT_TABLE)
        status_print(reply);
    else
        output_message(cli->format, &reply->base);
    drover__optimizer_status_reply__free_unpacked(reply, NULL);
    return 0;
}

static int plan_run(struct cli *cli, const struct args *args, struct err *err)
{
    (void)args;
    Drover__OptimizerPlanRequest request = DROVER__OPTIMIZER_PLAN_REQUEST__INIT;
    Drover__OptimizerPlanReply *reply;
    if (cli_call(cli, DROVER__METHOD__OPTIMIZER_PLAN, &request.base, &drover__optimizer_plan_reply__descriptor, err,
            &reply) < 0)
        return err_wrap(err, "optimizer plan");
    if (cli->format == OUTPUT_TABLE) {
        moves_print(reply->n_moves, reply->moves);
        output_field("Imbalance", "%.3f now, %.3f after", reply->imbalance_before, reply->imbalance_after);
        output_field("Verdict", "%s", reply->verdict);
    } else {
        output_message(cli->format, &reply->base);
    }
    drover__optimizer_plan_reply__free_unpacked(reply, NULL);
    return 0;
}

static int apply_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__OptimizerApplyRequest request = DROVER__OPTIMIZER_APPLY_REQUEST__INIT;
    return cli_submit(cli, args, DROVER__METHOD__OPTIMIZER_APPLY, &request.base, NULL, NULL, err);
}

static int set_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__OptimizerSetRequest request = DROVER__OPTIMIZER_SET_REQUEST__INIT;
    request.automatic = strcmp(args_text(args, "automatic"), "on") == 0;
    return cli_submit(cli, args, DROVER__METHOD__OPTIMIZER_SET, &request.base, NULL, NULL, err);
}

static const struct command optimizer_status = {
    .path = "optimizer status",
    .kind = COMMAND_WATCH,
    .summary = "how full the hosts are, and what it makes of it",
    .text = "A host is hot when it has been above a threshold of its "
            "CPU, memory or IOPS for some time; 'watching' is before\n"
            "that time is over. The thresholds are in the controllers' configuration.",
    .example = "drover optimizer status --watch",
    .run = status_run,
};
static const struct command optimizer_plan = {
    .path = "optimizer plan",
    .kind = COMMAND_OTHER,
    .summary = "what it would move now, and why",
    .text = "Nothing is moved. What is above its threshold now counts as hot, however short it has been.",
    .example = "drover optimizer plan",
    .run = plan_run,
};
static const struct command optimizer_apply = {
    .path = "optimizer apply",
    .kind = COMMAND_JOB,
    .summary = "make that plan and carry it out",
    .text = "The moves are migrations, jobs of their own, as many at "
            "once as hosts and links may have (drover cluster status).\n"
            "No plan moves a VM to a host that the hosts' own facts rule out for it.",
    .example = "drover optimizer plan\ndrover optimizer apply",
    .run = apply_run,
};
static const struct flag set_flags[] = {
    {"automatic", 0, FLAG_CHOICE, .required = true, .value = "on|off", .help = "whether it moves VMs by itself"},
    {NULL},
};
static const struct command optimizer_set = {
    .path = "optimizer set",
    .kind = COMMAND_JOB,
    .summary = "let it act by itself, or only when asked",
    .example = "drover optimizer set --automatic on",
    .flags = set_flags,
    .run = set_run,
};

const struct command *const cmd_optimizer[] = {
    &optimizer_status, &optimizer_plan, &optimizer_apply, &optimizer_set, NULL};
