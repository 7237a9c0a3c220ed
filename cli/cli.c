#include "cli/cli.h"

int cli_connect(struct cli *cli, struct err *err)
{
    struct context context;
    if (cli->connection)
        return 0;
    if (context_load(cli->config, err, &context) < 0)
        return -1;
    int status = connect_open(&context, cli->timeout_ms, err, &cli->connection);
    context_wipe(&context);
    return status;
}

int cli_call(struct cli *cli, uint32_t method, const ProtobufCMessage *request, const ProtobufCMessageDescriptor *type,
    struct err *err, void *out)
{
    if (cli_connect(cli, err) < 0)
        return -1;
    return connect_call(cli->connection, method, request, type, err, out);
}

Drover__ReadOptions *cli_read_options(const struct args *args, Drover__ReadOptions *read)
{
    drover__read_options__init(read);
    bool reads = args->command->kind == COMMAND_READ || args->command->kind == COMMAND_WATCH;
    read->stale = reads && args_on(args, "stale");
    return read;
}

int cli_list_end(struct cli *cli, struct table *table, json_t *array, bool ok, const char *empty)
{
    if (table && ok)
        table_print(table, empty);
    else if (table)
        table_free(table);
    if (!table && ok)
        output_document(cli->format, array);
    else
        json_decref(array);
    return ok ? 0 : -1;
}
