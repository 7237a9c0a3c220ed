#include "tests/unit/cli/fake_controller.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/buf.h"
#include "base/ensure.h"
#include "base/loop.h"

struct fake {
    uv_loop_t loop;
    struct wire *wire;
    struct wire_server *server;
    struct key_pair key;
    uint8_t client_key[KEY_BYTES];
    struct fake_log *log;
    uv_async_t stop;
    pthread_t thread;
    atomic_int mode;
    _Atomic(struct fake *) leader;
    atomic_uint requests;
    struct wire_request *unanswered[64]; /* answered when nobody hears it any more, because a request must be */
    size_t unanswered_count;
};

static bool allow(void *user, const uint8_t public_key[KEY_BYTES], struct principal *out)
{
    struct fake *f = user;
    if (memcmp(public_key, f->client_key, KEY_BYTES) != 0)
        return false;
    *out = (struct principal){.kind = PRINCIPAL_USER, .name = "anna"};
    return true;
}

static void job_fill(Drover__Job *job, uint64_t id)
{
    drover__job__init(job);
    job->id = id;
    job->kind = DROVER__JOB_KIND__JOB_VM_START;
    job->target = (char *)"web-1";
    job->state = DROVER__JOB_STATE__JOB_SUCCEEDED;
}

static void answer_list(struct fake *f, struct wire_request *request, const uint8_t *body, size_t len)
{
    Drover__JobListRequest *asked = drover__job_list_request__unpack(NULL, len, body);
    Drover__JobListReply reply = DROVER__JOB_LIST_REPLY__INIT;
    Drover__Job jobs[8], *list[8];
    uint64_t limit = asked->limit && asked->limit < 8 ? asked->limit : 8;
    for (uint64_t id = f->log->jobs; id > 0 && reply.n_jobs < limit; id--) {
        list[reply.n_jobs] = &jobs[reply.n_jobs];
        job_fill(&jobs[reply.n_jobs++], id);
    }
    reply.jobs = list;
    wire_reply(request, &reply.base);
    drover__job_list_request__free_unpacked(asked, NULL);
}

/* The job of a change: the one it has made already, or a new one. */
static uint64_t job_of(struct fake_log *log, const uint8_t *body, size_t len)
{
    Drover__VmStartRequest *asked = drover__vm_start_request__unpack(NULL, len, body);
    size_t i = 0;
    ENSURE(asked && asked->request_id[0]);
    while (i < log->request_count && strcmp(log->requests[i].id, asked->request_id) != 0)
        i++;
    ENSURE(i < FAKE_REQUESTS_MAX);
    if (i == log->request_count) {
        snprintf(log->requests[i].id, sizeof log->requests[i].id, "%s", asked->request_id);
        log->requests[i].job = ++log->jobs;
        log->request_count++;
    }
    drover__vm_start_request__free_unpacked(asked, NULL);
    return log->requests[i].job;
}

static void leave_unanswered(struct fake *f, struct wire_request *request)
{
    ENSURE(f->unanswered_count < sizeof f->unanswered / sizeof *f->unanswered);
    f->unanswered[f->unanswered_count++] = request;
}

/* What it was asked is done; the answer is another matter. */
static void take(struct fake *f, struct wire_request *request, const uint8_t *body, size_t len, enum fake_mode mode)
{
    Drover__JobReply reply = DROVER__JOB_REPLY__INIT;
    Drover__Job job;
    struct err err;
    if (mode == FAKE_LOSES_AND_DIES)
        job_fill(&job, ++f->log->jobs);
    else
        job_fill(&job, job_of(f->log, body, len));
    reply.job = &job;
    if (mode == FAKE_LEADS) {
        wire_reply(request, &reply.base);
        return;
    }
    f->mode = FAKE_FOLLOWS;
    if (mode == FAKE_CLOSES) {
        err_set(&err, ERR_CANCELLED, "this member is closing");
        wire_reply_error(request, &err);
    } else {
        leave_unanswered(f, request);
    }
}

static void handle(
    void *user, struct wire_request *request, struct wire_peer *peer, uint32_t method, const uint8_t *body, size_t len)
{
    (void)peer;
    struct fake *f = user, *leader = f->leader;
    struct err err;
    Drover__ErrorInfo garbled = DROVER__ERROR_INFO__INIT;
    f->requests++;
    const enum fake_mode mode = (enum fake_mode)f->mode;
    switch (mode) {
    case FAKE_LEADS:
    case FAKE_TAKES_AND_DIES:
    case FAKE_LOSES_AND_DIES:
    case FAKE_CLOSES:
        if (method == DROVER__METHOD__JOB_LIST)
            answer_list(f, request, body, len);
        else
            take(f, request, body, len, mode);
        break;
    case FAKE_FOLLOWS:
        err_set(&err, ERR_NOT_LEADER, "%s", leader ? wire_server_address(leader->server) : "");
        wire_reply_error(request, &err);
        break;
    case FAKE_SILENT:
        leave_unanswered(f, request);
        break;
    case FAKE_UNAVAILABLE:
        err_set(&err, ERR_UNAVAILABLE, "host h2 is down");
        wire_reply_error(request, &err);
        break;
    case FAKE_REFUSES:
        err_set(&err, ERR_BUSY, "job 7 holds web-1");
        wire_reply_error(request, &err);
        break;
    case FAKE_GARBLED:
        garbled.code = (char *)"\001\002\003"; /* field 1 as text, where a job is expected */
        wire_reply(request, &garbled.base);
        break;
    }
}

static void on_stop(uv_async_t *async)
{
    struct fake *f = async->data;
    struct err err;
    wire_server_close(f->server);
    err_set(&err, ERR_CANCELLED, "over");
    for (size_t i = 0; i < f->unanswered_count; i++)
        wire_reply_error(f->unanswered[i], &err);
    wire_free(f->wire);
    uv_close((uv_handle_t *)&f->stop, NULL);
    uv_stop(&f->loop);
}

static void *fake_main(void *user)
{
    struct fake *f = user;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    loop_close(&f->loop);
    return NULL;
}

struct fake *fake_start(struct fake_log *log, const uint8_t client_key[KEY_BYTES])
{
    struct fake *f = mem_zalloc(sizeof *f);
    struct err err;
    const struct wire_options options = {.handler = handle, .user = f};
    f->log = log;
    memcpy(f->client_key, client_key, KEY_BYTES);
    ENSURE(uv_loop_init(&f->loop) == 0 && uv_async_init(&f->loop, &f->stop, on_stop) == 0);
    f->stop.data = f;
    ENSURE(key_generate(&err, &f->key) == 0);
    ENSURE(wire_new(&f->loop, &f->key, "fake", allow, f, &err, &f->wire) == 0);
    ENSURE(wire_server_open(f->wire, "tcp://127.0.0.1:0", &options, &err, &f->server) == 0);
    ENSURE(pthread_create(&f->thread, NULL, fake_main, f) == 0);
    return f;
}

void fake_set(struct fake *f, enum fake_mode mode, struct fake *leader)
{
    f->leader = leader;
    f->mode = (int)mode;
}

void fake_describe(const struct fake *f, struct peerlist_entry *out)
{
    memcpy(out->key, f->key.public_key, KEY_BYTES);
    snprintf(out->address, sizeof out->address, "%s", wire_server_address(f->server));
}

unsigned fake_requests(const struct fake *f)
{
    return f->requests;
}

void fake_stop(struct fake *f)
{
    uv_async_send(&f->stop);
    pthread_join(f->thread, NULL);
    free(f);
}
