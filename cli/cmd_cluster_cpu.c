/* drover cluster cpu: the processor that guests can be given on every host. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/cli.h"

static void joined(char *const *words, size_t count, struct buf *out)
{
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s%s", i ? ", " : "", words[i]);
}

static void limits_print(const Drover__CpuBaseline *b)
{
    static const char *const columns[] = {"RICHER MODEL", "LIMITED BY", "WHICH LACKS", NULL};
    struct table *table = table_new(columns);
    for (size_t i = 0; i < b->n_limits; i++) {
        const Drover__CpuLimit *limit = b->limits[i];
        cleanup_buf struct buf missing = {0};
        joined(limit->missing, limit->n_missing, &missing);
        table_add(table, "%s", limit->model);
        table_add(table, "%s", limit->host);
        table_add(table, "%s", limit->n_missing ? buf_str(&missing) : "the model: its QEMU does not know it");
    }
    putchar('\n');
    table_print(table, "no host limits it");
}

static void baseline_print(const Drover__CpuBaseline *b)
{
    cleanup_buf struct buf hosts = {0};
    joined(b->hosts, b->n_hosts, &hosts);
    output_field("Accelerator", "%s, on %s", b->accelerator, buf_str(&hosts));
    output_field("Baseline", "%s", b->model[0] ? b->model : "none: these hosts have not said what they can show");
    output_field("New VMs take", "%s", b->default_model);
    if (b->n_limits)
        limits_print(b);
}

static int cpu_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__ClusterCpuRequest request = DROVER__CLUSTER_CPU_REQUEST__INIT;
    Drover__ClusterCpuReply *reply;
    Drover__ReadOptions read;
    request.read = cli_read_options(args, &read);
    if (cli_call(cli, DROVER__METHOD__CLUSTER_CPU, &request.base, &drover__cluster_cpu_reply__descriptor, err, &reply) <
        0)
        return err_wrap(err, "cluster cpu");
    if (cli->format == OUTPUT_TABLE) {
        output_field("Machine type", "%s", reply->machine_type[0] ? reply->machine_type : "none in common");
        for (size_t i = 0; i < reply->n_baselines; i++) {
            putchar('\n');
            baseline_print(reply->baselines[i]);
        }
    } else {
        output_message(cli->format, &reply->base);
    }
    drover__cluster_cpu_reply__free_unpacked(reply, NULL);
    return 0;
}

const struct command cmd_cluster_cpu = {
    .path = "cluster cpu",
    .kind = COMMAND_READ,
    .summary = "the processor and machine type all hosts can give a guest",
    .text = "A VM keeps the machine type and processor of its first start, so that it can move to any of these hosts.\n"
            "What is shown as 'New VMs take' is given to VMs that are created without --cpu-model. Under tcg that is\n"
            "QEMU's own richest processor, which is the same on every host of one QEMU version.",
    .example = "drover cluster cpu",
    .run = cpu_run,
};
