/* What every command of the command line gets, and what several of them need. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "cli/args.h"
#include "cli/connect.h"
#include "cli/output.h"

struct cli {
    const struct command *const *commands; /* the table; ends with NULL */
    enum output_format format;
    const char *config; /* --config, or NULL */
    uint32_t timeout_ms;
    struct connection *connection; /* made when first needed */
};

/* Asks the controllers (connect_call), connecting when it is the first time. */
MUST_CHECK int cli_call(struct cli *cli, uint32_t method, const ProtobufCMessage *request,
    const ProtobufCMessageDescriptor *type, struct err *err, void *out);
/* Asks for a change and, unless --async, waits for its job and shows it: the whole of a command that makes a job. Fails
 * when the job failed. Errors name `target` (may be NULL); `finished` (likewise) prints more about a job that
 * succeeded, for people. */
MUST_CHECK int cli_submit(struct cli *cli, const struct args *args, uint32_t method, const ProtobufCMessage *request,
    const char *target, void (*finished)(const Drover__Job *job), struct err *err);
/* The same for a job that is there already. */
MUST_CHECK int cli_follow(struct cli *cli, const struct args *args, const Drover__Job *job,
    void (*finished)(const Drover__Job *job), struct err *err);
/* Reads the configuration and connects, unless that is done. */
MUST_CHECK int cli_connect(struct cli *cli, struct err *err);
/* The options of read requests by --stale. Lent from `read`. */
Drover__ReadOptions *cli_read_options(const struct args *args, Drover__ReadOptions *read);

/* Prints a list: the table, or the array of everything. Takes both; not `ok` throws them away and returns -1. */
MUST_CHECK int cli_list_end(struct cli *cli, struct table *table, json_t *array, bool ok, const char *empty);

/* The commands; one array per noun, each ends with NULL. */
extern const struct command *const cmd_cluster[],
    *const cmd_host[], *const cmd_vm[], *const cmd_job[], *const cmd_optimizer[], *const cmd_local[];

#endif
