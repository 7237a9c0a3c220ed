/* drover job: what is being done, was done, and by whom. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/format.h"
#include "cli/cli.h"
#include "cli/show.h"
#include "cli/wait.h"
#include "proto/pbjson.h"

#define PAGE_JOBS 500

static int id_parse(const char *text, struct err *err, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long id = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || id == 0)
        return err_set(err, ERR_INVALID, "job '%.32s': not a job's number; 'drover job list' shows them", text);
    *out = id;
    return 0;
}

static void row_add(struct table *table, const Drover__Job *job)
{
    char text[64];
    int64_t end_ms = job->finished_ms ? job->finished_ms : job->created_ms;
    table_add(table, "%" PRIu64, job->id);
    table_add(table, "%s", pbjson_enum(&drover__job_kind__descriptor, (int)job->kind, text));
    table_add(table, "%s", job->target[0] ? job->target : "-");
    table_add(table, "%s", pbjson_enum(&drover__job_state__descriptor, (int)job->state, text));
    table_add(table, "%s", job->actor);
    table_add(table, "%s", show_time(job->created_ms, text));
    table_add(
        table, "%s", end_ms > job->created_ms ? format_duration_ms((uint64_t)(end_ms - job->created_ms), text) : "-");
    if (job->waiting[0])
        table_add(table, "%s", job->waiting);
    else if (job->error && job->error->message[0])
        table_add(table, "%s", job->error->message);
    else
        table_add(table, "%s", job->reason);
}

static int list_run(struct cli *cli, const struct args *args, struct err *err)
{
    static const char *const columns[] = {
        ">ID", "WHAT", "TARGET", "STATE", "ASKED BY", "CREATED", ">TOOK", "WHY", NULL};
    struct table *table = cli->format == OUTPUT_TABLE ? table_new(columns) : NULL;
    json_t *array = json_array();
    uint64_t left = args_number(args, "limit", 20), before = 0;
    bool more = true;
    while (more) {
        Drover__JobListRequest request = DROVER__JOB_LIST_REQUEST__INIT;
        Drover__JobListReply *reply;
        Drover__ReadOptions read;
        request.read = cli_read_options(args, &read);
        request.active_only = args_on(args, "active");
        request.before_id = before;
        request.limit = (uint32_t)(left < PAGE_JOBS ? left : PAGE_JOBS);
        if (cli_call(cli, DROVER__METHOD__JOB_LIST, &request.base, &drover__job_list_reply__descriptor, err, &reply) <
            0) {
            err_wrap(err, "job list");
            break;
        }
        for (size_t i = 0; i < reply->n_jobs && left > 0; i++, left--) {
            before = reply->jobs[i]->id;
            if (table)
                row_add(table, reply->jobs[i]);
            else
                json_array_append_new(array, pbjson(&reply->jobs[i]->base));
        }
        more = reply->more && reply->n_jobs > 0 && left > 0;
        drover__job_list_reply__free_unpacked(reply, NULL);
    }
    return cli_list_end(cli, table, array, !more, args_on(args, "active") ? "no active jobs" : "no jobs");
}

static int show_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__JobListRequest request = DROVER__JOB_LIST_REQUEST__INIT;
    Drover__JobListReply *reply;
    Drover__ReadOptions read;
    if (id_parse(args->words[0], err, &request.id) < 0)
        return -1;
    request.read = cli_read_options(args, &read);
    if (cli_call(cli, DROVER__METHOD__JOB_LIST, &request.base, &drover__job_list_reply__descriptor, err, &reply) < 0)
        return err_wrap(err, "job show %s", args->words[0]);
    int status = 0;
    if (reply->n_jobs != 1)
        status = err_set(err, ERR_NOT_FOUND, "job %s: there is none; 'drover job list' shows the jobs", args->words[0]);
    else if (cli->format == OUTPUT_TABLE)
        show_job(reply->jobs[0]);
    else
        output_message(cli->format, &reply->jobs[0]->base);
    drover__job_list_reply__free_unpacked(reply, NULL);
    return status;
}

static void summary_print(const Drover__Job *job)
{
    if (job->migration && job->migration->to_host[0]) {
        putchar('\n');
        show_migration(job->migration);
    }
}

static int watch_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__JobListReply *last;
    uint64_t id = 0;
    if (id_parse(args->words[0], err, &id) < 0 || cli_connect(cli, err) < 0 ||
        wait_for_job(cli, id, cli->format == OUTPUT_TABLE, err, &last) < 0)
        return -1;
    int status = wait_verdict(last->jobs[0], err);
    if (cli->format != OUTPUT_TABLE)
        output_message(cli->format, &last->jobs[0]->base);
    else if (status == 0)
        summary_print(last->jobs[0]);
    drover__job_list_reply__free_unpacked(last, NULL);
    return status;
}

/* The job that is cancelled is the one waited for; that it ends as cancelled is what was asked for. */
static int cancel_run(struct cli *cli, const struct args *args, struct err *err)
{
    Drover__JobCancelRequest request = DROVER__JOB_CANCEL_REQUEST__INIT;
    Drover__JobReply *reply;
    if (id_parse(args->words[0], err, &request.id) < 0)
        return -1;
    if (args_on(args, "disk"))
        request.disk = (char *)(uintptr_t)args_text(args, "disk");
    if (cli_call(cli, DROVER__METHOD__JOB_CANCEL, &request.base, &drover__job_reply__descriptor, err, &reply) < 0)
        return err_wrap(err, "job cancel %s", args->words[0]);
    int status = reply->job ? cli_follow(cli, args, reply->job, NULL, err)
                            : err_set(err, ERR_PROTOCOL, "job cancel: the controller answered without a job");
    drover__job_reply__free_unpacked(reply, NULL);
    if (status < 0 && err->code == ERR_CANCELLED && !connect_interrupted(cli->connection)) {
        if (cli->format == OUTPUT_TABLE)
            printf("job %s is cancelled\n", args->words[0]);
        return 0;
    }
    if (status == 0 && !args_on(args, "async"))
        return err_set(err, ERR_WRONG_STATE, "job %s: it had succeeded before it could be cancelled", args->words[0]);
    return status;
}

static const struct flag list_flags[] = {
    {"active", 0, FLAG_SWITCH, .help = "only those that are not over"},
    {"limit", 0, FLAG_UINT, .value = "N", .min = 1, .max = 100000, .help = "how many, the newest first (20)"},
    {NULL},
};
static const struct command job_list = {
    .path = "job list",
    .kind = COMMAND_WATCH,
    .summary = "the newest jobs",
    .text = "Every change of the cluster is a job: who asked, why, what was done and how it ended.",
    .example = "drover job list\ndrover job list --active --watch",
    .flags = list_flags,
    .run = list_run,
};
static const struct command job_show = {
    .path = "job show",
    .arguments = "JOB",
    .kind = COMMAND_WATCH,
    .summary = "one job with its steps, and the rounds of a migration",
    .example = "drover job show 12",
    .run = show_run,
};
static const struct command job_watch = {
    .path = "job watch",
    .arguments = "JOB",
    .kind = COMMAND_OTHER,
    .summary = "follow a job to its end",
    .text = "Ends with the job, and with exit status 0 only if it succeeded. Ctrl-C ends the watching, not the job.",
    .example = "drover vm migrate web-1 --async\ndrover job watch 12",
    .run = watch_run,
};
static const struct flag cancel_flags[] = {
    {"disk", 0, FLAG_TEXT, .value = "FILE",
        .help = "of a move of a disk: which of its two files is the disk, should nothing else tell"},
    {NULL},
};
static const struct command job_cancel = {
    .path = "job cancel",
    .arguments = "JOB",
    .kind = COMMAND_JOB,
    .summary = "stop a job and undo what can be undone",
    .text = "A migration that has not handed the guest over stops, and "
            "the guest goes on where it is. What cannot be stopped any\n"
            "more goes on to its end, and moves that a plan or an evacuation has made stay made.\n\n"
            "A move of a disk ('vm move-storage') waits where its guest is dead, "
            "the host has lost its records, and the disk's\n"
            "files cannot be seen where they were: then nobody knows whether "
            "the guest had begun to use the new one. Look at\n"
            "both, and say with --disk which is the disk. Neither is removed, "
            "and where the host knows after all, that counts.",
    .example = "drover job cancel 12\n"
               "drover job cancel 12 --disk /srv/slow/web.raw",
    .flags = cancel_flags,
    .run = cancel_run,
};

const struct command *const cmd_job[] = {&job_list, &job_show, &job_watch, &job_cancel, NULL};
