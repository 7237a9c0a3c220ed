/* Asking for a change, and following its job to the end. */
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/ensure.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/wait.h"
#include "proto/pbjson.h"

#define POLL_MS 200

static size_t terminal_width(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

/* What is shown of a job that is waited for. */
struct display {
    struct progress progress;
    struct buf last; /* the line that is drawn again and again on a terminal: the running step */
    bool terminal;
};

static void display_job(struct display *d, const Drover__Job *job)
{
    cleanup_buf struct buf news = {0}, current = {0};
    progress_news(&d->progress, job, !d->terminal, &news);
    if (!d->terminal) {
        fputs(buf_str(&news), stdout);
        fflush(stdout);
        return;
    }
    progress_current(job, &current);
    size_t width = terminal_width();
    if (current.len >= width)
        current.len = width - 1;
    if (news.len == 0 && current.len == d->last.len && memcmp(buf_str(&current), buf_str(&d->last), current.len) == 0)
        return;
    printf("\r\033[K%s%.*s", buf_str(&news), (int)current.len, buf_str(&current));
    fflush(stdout);
    buf_clear(&d->last);
    buf_append(&d->last, buf_str(&current), current.len);
}

static int fetch(struct cli *cli, uint64_t id, struct err *err, Drover__JobListReply **out)
{
    Drover__JobListRequest request = DROVER__JOB_LIST_REQUEST__INIT;
    Drover__JobListReply *reply;
    request.id = id;
    if (cli_call(cli, DROVER__METHOD__JOB_LIST, &request.base, &drover__job_list_reply__descriptor, err, &reply) < 0)
        return -1;
    if (reply->n_jobs != 1) {
        drover__job_list_reply__free_unpacked(reply, NULL);
        return err_set(err, ERR_NOT_FOUND, "job %" PRIu64 ": there is none; 'drover job list' shows the jobs", id);
    }
    *out = reply;
    return 0;
}

static int no_longer_waited_for(uint64_t id, enum err_code code, const char *cause, struct err *err)
{
    char why[ERR_MESSAGE_MAX];
    snprintf(why, sizeof why, "%s", cause);
    return err_set(err, code,
        "job %" PRIu64 ": no longer waited for, but it goes on; 'drover job watch %" PRIu64
        "' shows it, 'drover job cancel %" PRIu64 "' stops it%s%.200s",
        id, id, id, why[0] ? ": " : "", why);
}

int wait_for_job(struct cli *cli, uint64_t id, bool show, struct err *err, Drover__JobListReply **out)
{
    struct display display = {.terminal = isatty(STDOUT_FILENO) == 1};
    Drover__JobListReply *reply = NULL;
    if (fetch(cli, id, err, &reply) < 0)
        return -1;
    if (connect_catch_interrupt(cli->connection, err) < 0)
        goto fail;
    for (;;) {
        ENSURE(reply);
        if (show)
            display_job(&display, reply->jobs[0]);
        if (progress_over(reply->jobs[0]))
            break;
        drover__job_list_reply__free_unpacked(reply, NULL);
        reply = NULL;
        connect_pause(cli->connection, POLL_MS);
        if (connect_interrupted(cli->connection) || fetch(cli, id, err, &reply) < 0)
            goto fail;
    }
    buf_free(&display.last);
    *out = reply;
    return 0;
fail:
    if (display.last.len)
        putchar('\n');
    buf_free(&display.last);
    if (reply)
        drover__job_list_reply__free_unpacked(reply, NULL);
    if (connect_interrupted(cli->connection))
        return no_longer_waited_for(id, ERR_CANCELLED, "", err);
    if (err->code == ERR_UNAVAILABLE || err->code == ERR_TIMEOUT)
        return no_longer_waited_for(id, err->code, err->message, err);
    return err_wrap(err, "job %" PRIu64, id);
}

static const char *next_step(enum err_code code)
{
    switch (code) {
    case ERR_CAPACITY:
        return "'drover host list' shows where room is";
    case ERR_CONVERGENCE:
        return "'drover help vm migrate' says what --max-downtime and --mode do";
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
        return "'drover host list' shows whether the hosts are up; then try again";
    case ERR_BUSY:
        return "'drover job list --active' shows what holds it; then try again";
    default:
        return NULL;
    }
}

/* What was undone, after "; ". */
static void undone_append(const Drover__Job *job, struct buf *out)
{
    for (size_t i = 0; i < job->n_steps; i++)
        if (job->steps[i]->state == DROVER__STEP_STATE__STEP_UNDONE && job->steps[i]->detail[0])
            buf_printf(out, "; %.160s", job->steps[i]->detail);
}

int wait_verdict(const Drover__Job *job, struct err *err)
{
    char text[64], hint[64];
    cleanup_buf struct buf undone = {0};
    const char *kind = pbjson_enum(&drover__job_kind__descriptor, (int)job->kind, text);
    const char *cause = job->error && job->error->message[0] ? job->error->message : "no cause was recorded";
    const char *step = "", *next;
    const char *name = job->target[0] ? job->target : "-";
    if (job->state == DROVER__JOB_STATE__JOB_SUCCEEDED)
        return 0;
    for (size_t i = 0; i < job->n_steps; i++)
        if (job->steps[i]->state == DROVER__STEP_STATE__STEP_FAILED)
            step = job->steps[i]->name;
    undone_append(job, &undone);
    if (job->state == DROVER__JOB_STATE__JOB_CANCELLED)
        return err_set(
            err, ERR_CANCELLED, "%s %s: job %" PRIu64 " was cancelled%s", kind, name, job->id, buf_str(&undone));
    enum err_code code = job->error ? err_from_name(job->error->code) : ERR_INTERNAL;
    snprintf(hint, sizeof hint, "'drover job show %" PRIu64 "' has the steps", job->id);
    next = strstr(cause, "drover ") ? "" : next_step(code) ? next_step(code) : hint; /* the cause may say it itself */
    return err_set(err, ERR_JOB_FAILED, "%s %s: job %" PRIu64 " failed%s%s (%s): %s%s%s%s", kind, name, job->id,
        step[0] ? " in step " : "", step, err_name(code), cause, buf_str(&undone), next[0] ? "; " : "", next);
}

int cli_submit(struct cli *cli, const struct args *args, uint32_t method, const ProtobufCMessage *request,
    const char *target, void (*finished)(const Drover__Job *job), struct err *err)
{
    Drover__JobReply *reply;
    if (cli_connect(cli, err) < 0 || connect_catch_interrupt(cli->connection, err) < 0)
        return -1;
    if (connect_submit(cli->connection, method, request, err, &reply) < 0)
        return err_wrap(err, "%s%s%.64s", args->command->path, target ? " " : "", target ? target : "");
    int status = cli_follow(cli, args, reply->job, finished, err);
    drover__job_reply__free_unpacked(reply, NULL);
    return status;
}

int cli_follow(struct cli *cli, const struct args *args, const Drover__Job *job,
    void (*finished)(const Drover__Job *job), struct err *err)
{
    char kind[64];
    Drover__JobListReply *last = NULL;
    if (args_on(args, "async")) {
        if (cli->format == OUTPUT_TABLE)
            printf("job %" PRIu64 ": %s %s; 'drover job watch %" PRIu64 "' follows it\n", job->id,
                pbjson_enum(&drover__job_kind__descriptor, (int)job->kind, kind), job->target, job->id);
        else
            output_message(cli->format, &job->base);
        return 0;
    }
    if (wait_for_job(cli, job->id, cli->format == OUTPUT_TABLE, err, &last) < 0)
        return -1;
    ENSURE(last);
    int status = wait_verdict(last->jobs[0], err);
    if (cli->format != OUTPUT_TABLE)
        output_message(cli->format, &last->jobs[0]->base);
    else if (status == 0 && finished)
        finished(last->jobs[0]);
    drover__job_list_reply__free_unpacked(last, NULL);
    return status;
}
