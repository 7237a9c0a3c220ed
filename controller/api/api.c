#include "controller/api/api.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "controller/api/call.h"
#include "controller/api/validate.h"
#include "proto/bounded.h"

#define REQUEST_ID_MAX  64
#define REQUEST_KEY_MAX (16 + WIRE_PRINCIPAL_MAX + REQUEST_ID_MAX)
#define LIST_BYTES_MAX  (1u << 20) /* of a list in one answer: half of what wire takes */

static void call_free(struct api_call *call)
{
    pb_free(call->message);
    free(call);
}

void api_reply(struct api_call *call, const void *message)
{
    wire_reply(call->request, message);
    call_free(call);
}

void api_fail(struct api_call *call, const struct err *err)
{
    char address[WIRE_ADDRESS_MAX];
    struct err leader;
    if (err->code == ERR_NOT_LEADER) { /* the message is where to ask instead */
        controller_leader_address(call->c, address);
        err_set(&leader, ERR_NOT_LEADER, "%s", address);
        err = &leader;
    }
    wire_reply_error(call->request, err);
    call_free(call);
}

bool api_room(size_t *used, const void *message)
{
    *used += protobuf_c_message_get_packed_size(message);
    return *used <= LIST_BYTES_MAX;
}

/* --- jobs --- */

/* As the source reports it; before it does, an empty one, so that an unfinished migration always has it. Take. */
static Drover__MigrationProgress *job_progress(const struct controller *c, const struct job *job)
{
    const Drover__JobData *data = job->log.data;
    const struct fleet_host *host = data->from_host[0] ? fleet_find(c->fleet, data->from_host) : NULL;
    const struct fleet_partition *p = host ? fleet_partition(host, data->vm_id) : NULL;
    if (p && p->progress && strcmp(p->migration_id, data->migration_id) == 0)
        return pb_copy(p->progress);
    return pb_new(&drover__migration_progress__descriptor);
}

Drover__Job *api_job_message(struct controller *c, uint64_t id)
{
    struct state_job found;
    if (!state_job(c->state, id, &found))
        return NULL;
    Drover__Job *job = found.job;
    const struct job *live = runner_job(c->runner, id);
    if (live)
        pb_string(&job->waiting, live->waiting);
    if (live && found.step < job->n_steps && live->waiting[0] && !job->steps[found.step]->detail[0])
        pb_string(&job->steps[found.step]->detail, live->waiting);
    if (live && (job->kind == DROVER__JOB_KIND__JOB_VM_MIGRATE || job->kind == DROVER__JOB_KIND__JOB_VM_MOVE_STORAGE))
        job->progress = job_progress(c, live);
    for (size_t i = 0; i < found.data->n_findings; i++)
        PB_ADD(job, findings, pb_copy(found.data->findings[i]));
    found.job = NULL;
    state_job_clear(&found);
    return job;
}

void api_reply_job(struct api_call *call, uint64_t id)
{
    struct err err;
    Drover__JobReply reply = DROVER__JOB_REPLY__INIT;
    reply.job = api_job_message(call->c, id);
    if (!reply.job) {
        err_set(&err, ERR_NOT_FOUND, "job %" PRIu64 " does not exist; `drover job list` shows the latest", id);
        api_fail(call, &err);
        return;
    }
    cleanup_pb Drover__Job *job = reply.job;
    api_reply(call, &reply);
}

static void job_submitted(void *user, const struct err *err, const Drover__CommandResult *result)
{
    struct api_call *call = user;
    struct err why;
    if (err && err->code == ERR_NOT_LEADER) {
        api_fail(call, err);
    } else if (err) {
        err_set(&why, err->code, "%s; it is not known whether the job was made: see `drover job list`", err->message);
        api_fail(call, &why);
    } else if (result->error) {
        pb_error_get(result->error, &why);
        api_fail(call, &why);
    } else {
        api_reply_job(call, result->job_id);
    }
}

/* The caller's id for the request; false: it sent no usable one. One caller's ids are not another's, and a user may
 * have the name of a controller. */
static bool request_id(const struct api_call *call, char out[static REQUEST_KEY_MAX])
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(call->message->descriptor, "request_id");
    if (!field || field->type != PROTOBUF_C_TYPE_STRING)
        return false;
    const char *id = *(const char **)((const char *)call->message + field->offset);
    if (!id[0] || strlen(id) > REQUEST_ID_MAX)
        return false;
    static const char *const kinds[] = {
        [PRINCIPAL_CONTROLLER] = "controller", [PRINCIPAL_HOST] = "host", [PRINCIPAL_USER] = "user"};
    snprintf(out, REQUEST_KEY_MAX, "%s/%s/%s", kinds[call->actor.kind], call->actor.name, id);
    return true;
}

/* A request that has made its job already is answered with that: what it asks for may well be refused by now, because
 * it was done. Where the first is still on its way into the log, the command's own id tells. */
static bool call_repeated(struct api_call *call)
{
    char key[REQUEST_KEY_MAX];
    uint64_t job_id;
    if (!request_id(call, key) || !state_request(call->c->state, key, &job_id))
        return false;
    api_reply_job(call, job_id);
    return true;
}

Drover__JobCreate *api_job_new(Drover__JobKind kind, const char *target)
{
    Drover__JobCreate *create = pb_new(&drover__job_create__descriptor);
    create->kind = kind;
    create->data = pb_new(&drover__job_data__descriptor);
    pb_string(&create->target, target);
    return create;
}

void api_job(struct api_call *call, Drover__JobCreate *create)
{
    Drover__Command *command = proposer_command();
    command->body_case = DROVER__COMMAND__BODY_JOB_CREATE;
    command->job_create = create;
    pb_string(&create->actor, call->actor.name);
    char key[REQUEST_KEY_MAX];
    if (request_id(call, key))
        pb_string(&command->request_id, key);
    proposer_submit(call->c->replica, command, job_submitted, call);
}

/* --- what requests name --- */

int api_vm(const struct api_call *call, const char *name, struct err *err, struct state_vm *out)
{
    if (validate_name("VM", name, err) < 0)
        return -1;
    if (!state_vm_named(call->c->state, name, out))
        return err_set(err, ERR_NOT_FOUND, "VM %s does not exist; `drover vm list` shows all", name);
    return 0;
}

int api_host(const struct api_call *call, const char *name, struct err *err)
{
    struct state_host host;
    if (!name[0])
        return 0;
    if (validate_name("host", name, err) < 0)
        return -1;
    if (!state_host(call->c->state, name, &host))
        return err_set(err, ERR_NOT_FOUND, "host %s does not exist; `drover host list` shows all", name);
    return 0;
}

/* --- dispatch --- */

static const struct api_method *method_find(uint32_t number)
{
    static const struct api_method *const tables[] = {
        api_host_methods, api_vm_methods, api_storage_methods, api_cluster_methods, api_job_methods};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const struct api_method *m = tables[t]; m->run; m++)
            if (m->number == number)
                return m;
    return NULL;
}

static bool may(const struct principal *actor, enum api_access access)
{
    if (access == API_HOST)
        return actor->kind == PRINCIPAL_HOST;
    return actor->kind == PRINCIPAL_USER || actor->kind == PRINCIPAL_CONTROLLER;
}

static bool wants_stale(const ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(message->descriptor, "read");
    if (!field || field->descriptor != &drover__read_options__descriptor)
        return false;
    const Drover__ReadOptions *read = *(const Drover__ReadOptions *const *)((const char *)message + field->offset);
    return read && read->stale;
}

/* A read that waits for the proof of leadership. */
struct api_read {
    struct api_call *call;
    void (*run)(struct api_call *call);
};

static void read_ready(void *user, const struct err *err, const uint8_t *result, size_t len)
{
    (void)result, (void)len;
    struct api_read *read = user;
    if (err)
        api_fail(read->call, err);
    else
        read->run(read->call);
    free(read);
}

static void call_run(struct api_call *call, const struct api_method *method)
{
    struct err err;
    if (method->access == API_READ && wants_stale(call->message)) {
        method->run(call);
    } else if (!call->c->leader) {
        err_set(&err, ERR_NOT_LEADER, "another controller leads");
        api_fail(call, &err);
    } else if (method->access == API_READ) {
        struct api_read *read = mem_zalloc(sizeof *read);
        *read = (struct api_read){call, method->run};
        replica_read(call->c->replica, read_ready, read);
    } else if (method->access != API_CHANGE || !call_repeated(call)) {
        method->run(call);
    }
}

void api_handle(void *controller, struct wire_request *request, struct wire_peer *peer, uint32_t number,
    const uint8_t *body, size_t len)
{
    struct controller *c = controller;
    struct err err;
    if (!request)
        return; /* the API has no notes */
    const struct api_method *method = method_find(number);
    const struct principal *actor = wire_request_principal(request);
    if (!method) {
        err_set(&err, ERR_UNSUPPORTED, "method %u is unknown to this version of the controller", number);
        wire_reply_error(request, &err);
        return;
    }
    if (!may(actor, method->access)) {
        err_set(&err, ERR_DENIED, "%s may not do this", actor->name);
        log_event(LOG_WARN, "api.denied", "principal=%s method=%u", actor->name, number);
        wire_reply_error(request, &err);
        return;
    }
    ProtobufCMessage *message = bounded_unpack(method->request, body, len);
    if (!message) {
        err_set(&err, ERR_PROTOCOL, "method %u: the request cannot be decoded, or not within its bounds", number);
        wire_reply_error(request, &err);
        return;
    }
    struct api_call *call = mem_zalloc(sizeof *call);
    *call = (struct api_call){c, request, peer, *actor, message};
    call_run(call, method);
}

void api_peer(void *controller, struct wire_peer *peer, bool up)
{
    struct controller *c = controller;
    const struct principal *who = wire_peer_principal(peer);
    if (up || who->kind != PRINCIPAL_HOST)
        return;
    if (c->leader)
        log_event(LOG_INFO, "host.disconnected", "host=%s", who->name);
    fleet_disconnected(c->fleet, peer);
}
