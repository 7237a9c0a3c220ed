/* VMs: create, start, stop, delete, set, list, migrate, console. What can be refused at once is; the job's steps check
 * again. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/format.h"
#include "controller/api/call.h"
#include "controller/api/validate.h"
#include "controller/random.h"
#include "controller/state/ends.h"
#include "proto/bounded.h"
#include "proto/host.pb-c.h"

#define LIST_MAX        1000u
#define CONSOLE_MAX     65536u
#define CONSOLE_WAIT_MS 30000u
#define CALL_MS         5000u
#define GRACE_MAX_MS    3600000u
#define MAC_TRIES       16

static Drover__JobCreate *vm_job(Drover__JobKind kind, const char *name, const char *id)
{
    Drover__JobCreate *create = api_job_new(kind, name);
    pb_string(&create->vm_id, id);
    pb_string(&create->data->vm_id, id);
    return create;
}

static int spec_complete(const struct api_call *call, Drover__VmSpec *spec, struct err *err)
{
    char mac[RANDOM_MAC];
    for (size_t i = 0; i < spec->n_nics; i++) {
        if (spec->nics[i]->mac[0])
            continue;
        int tries = 0;
        do
            random_mac(mac);
        while (state_mac_taken(call->c->state, mac) && ++tries < MAC_TRIES);
        if (tries == MAC_TRIES)
            return err_set(err, ERR_CAPACITY, "VM %s: no free MAC address found", spec->name);
        pb_string(&spec->nics[i]->mac, mac);
    }
    for (size_t i = 0; i < spec->n_disks; i++)
        if (!spec->disks[i]->format[0])
            pb_string(&spec->disks[i]->format, "raw");
    return 0;
}

static void vm_create(struct api_call *call)
{
    const Drover__VmCreateRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    char id[RANDOM_UUID];
    if (validate_vm_spec(request->spec, &err) < 0 || api_host(call, request->host, &err) < 0 ||
        spec_complete(call, request->spec, &err) < 0) {
        api_fail(call, &err);
        return;
    }
    if (state_vm_named(call->c->state, request->spec->name, &vm)) {
        err_set(&err, ERR_EXISTS, "VM %s exists already; choose another name, or delete it first", vm.name);
        api_fail(call, &err);
        return;
    }
    random_uuid(id);
    Drover__JobCreate *create = vm_job(DROVER__JOB_KIND__JOB_VM_CREATE, request->spec->name, id);
    pb_string(&create->data->host, request->host);
    create->data->start = request->start;
    job_add_steps(create, request->start);
    PB_ADD(create, effects, effect_vm_insert(id, request->spec, request->host));
    api_job(call, create);
}

static void vm_start(struct api_call *call)
{
    const Drover__VmStartRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    if (api_vm(call, request->name, &err, &vm) < 0 || api_host(call, request->host, &err) < 0) {
        api_fail(call, &err);
        return;
    }
    if (vm.owner[0] && !vm.job_id) {
        err_set(&err, ERR_WRONG_STATE, "VM %s runs on host %s already", vm.name, vm.owner);
        api_fail(call, &err);
        return;
    }
    Drover__JobCreate *create = vm_job(DROVER__JOB_KIND__JOB_VM_START, vm.name, vm.id);
    pb_string(&create->data->host, request->host);
    job_add_steps(create, false);
    api_job(call, create);
}

static void vm_stop(struct api_call *call)
{
    const Drover__VmStopRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    if (api_vm(call, request->name, &err, &vm) < 0) {
        api_fail(call, &err);
        return;
    }
    if (request->grace_ms > GRACE_MAX_MS)
        err_set(&err, ERR_INVALID, "VM %s: a grace of %u ms; up to %u are allowed", vm.name, request->grace_ms,
            GRACE_MAX_MS);
    else if (!vm.owner[0] && !vm.job_id)
        err_set(&err, ERR_WRONG_STATE, "VM %s is stopped already", vm.name);
    else
        err.code = ERR_NONE;
    if (err.code != ERR_NONE) {
        api_fail(call, &err);
        return;
    }
    Drover__JobCreate *create = vm_job(DROVER__JOB_KIND__JOB_VM_STOP, vm.name, vm.id);
    create->data->force = request->force;
    create->data->grace_ms = request->grace_ms;
    job_add_steps(create, false);
    api_job(call, create);
}

static void vm_delete(struct api_call *call)
{
    const Drover__VmDeleteRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    if (api_vm(call, request->name, &err, &vm) < 0) {
        api_fail(call, &err);
        return;
    }
    if (vm.owner[0] && !vm.job_id) {
        err_set(&err, ERR_WRONG_STATE, "VM %s runs on host %s; stop it first: `drover vm stop %s`", vm.name, vm.owner,
            vm.name);
        api_fail(call, &err);
        return;
    }
    Drover__JobCreate *create = vm_job(DROVER__JOB_KIND__JOB_VM_DELETE, vm.name, vm.id);
    job_add_steps(create, false);
    api_job(call, create);
}

static void vm_set(struct api_call *call)
{
    const Drover__VmSetRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    if (api_vm(call, request->name, &err, &vm) < 0 || validate_vm_set(request, &err) < 0) {
        api_fail(call, &err);
        return;
    }
    Drover__VmSpec policy = DROVER__VM_SPEC__INIT;
    policy.max_downtime_ms = request->max_downtime_ms;
    policy.migration_mode = request->migration_mode;
    policy.on_no_convergence = request->on_no_convergence;
    Drover__JobCreate *create = vm_job(DROVER__JOB_KIND__JOB_VM_SET, vm.name, vm.id);
    PB_ADD(create->data, effects, effect_vm_policy_put(vm.id, &policy));
    job_add_steps(create, false);
    api_job(call, create);
}

static int migrate_check(
    const struct api_call *call, const Drover__VmMigrateRequest *request, struct err *err, struct state_vm *vm)
{
    if (api_vm(call, request->name, err, vm) < 0 || api_host(call, request->to_host, err) < 0 ||
        validate_migration_options(request->options, err) < 0 ||
        validate_text("reason", request->reason, VALIDATE_TEXT_MAX, err) < 0)
        return -1;
    if (vm->job_id)
        return 0; /* the state's refusal names the job */
    if (!vm->owner[0])
        return err_set(
            err, ERR_WRONG_STATE, "VM %s does not run; start it first: `drover vm start %s`", vm->name, vm->name);
    const struct fleet_host *host = fleet_find(call->c->fleet, vm->owner);
    const struct fleet_partition *p = host ? fleet_partition(host, vm->id) : NULL;
    if (p && p->halted[0])
        return err_set(err, ERR_WRONG_STATE,
            "VM %s stands still on host %s: %s; mend that first, and it goes on by itself", vm->name, vm->owner,
            p->halted);
    if (strcmp(vm->owner, request->to_host) == 0)
        return err_set(err, ERR_INVALID, "VM %s is on host %s already; choose another host", vm->name, vm->owner);
    return 0;
}

static void vm_migrate(struct api_call *call)
{
    const Drover__VmMigrateRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm vm;
    char id[RANDOM_UUID];
    if (migrate_check(call, request, &err, &vm) < 0) {
        api_fail(call, &err);
        return;
    }
    random_uuid(id);
    Drover__JobCreate *create =
        vm_job(request->dry_run ? DROVER__JOB_KIND__JOB_VM_FORECAST : DROVER__JOB_KIND__JOB_VM_MIGRATE, vm.name, vm.id);
    pb_string(&create->reason, request->reason);
    pb_string(&create->data->host, request->to_host);
    pb_string(&create->data->from_host, vm.owner);
    pb_string(&create->data->migration_id, id);
    create->data->options = pb_copy(request->options);
    job_add_steps(create, false);
    api_job(call, create);
}

/* How the VM is, as its owner said last; where that host is not heard, nobody can tell. */
static void vm_message_now(struct controller *c, const struct state_vm *vm, Drover__Vm *m)
{
    uint64_t now_ms = clock_now_ms();
    const struct fleet_host *host = fleet_find(c->fleet, vm->owner);
    const struct fleet_partition *p = host ? fleet_partition(host, vm->id) : NULL;
    char why[VALIDATE_TEXT_MAX] = "", text[FORMAT_MAX];
    if (!c->leader)
        snprintf(why, sizeof why, "only a leader knows, and %s does not lead", c->options.name);
    else if (!host)
        snprintf(why, sizeof why, "host %s not heard since %s leads", vm->owner, c->options.name);
    else if (!fleet_up(c->fleet, host, now_ms))
        snprintf(
            why, sizeof why, "host %s not heard for %s", vm->owner, format_duration_ms(now_ms - host->seen_ms, text));
    pb_string(&m->unknown, why);
    if (p && !why[0]) {
        m->state = fleet_vm_state(host, p, vm);
        m->uptime_ms = p->uptime_ms;
        m->load = pb_new(&drover__load__descriptor);
        load_write(&p->load, m->load);
        pb_string(&m->halted, p->halted);
    }
}

static Drover__Vm *vm_message(struct controller *c, const struct state_vm *vm, const struct end *ends, size_t end_count)
{
    Drover__Vm *m = pb_new(&drover__vm__descriptor);
    pb_string(&m->id, vm->id);
    m->spec = state_vm_spec(c->state, vm->id);
    m->desired = vm->desired_running ? DROVER__VM_DESIRED__VM_DESIRED_RUNNING : DROVER__VM_DESIRED__VM_DESIRED_STOPPED;
    pb_string(&m->owner, vm->owner);
    m->generation = vm->generation;
    m->job_id = vm->job_id;
    m->created_ms = vm->created_ms;
    if (vm->hand_over_id[0]) {
        m->hand_over = pb_new(&drover__hand_over__descriptor);
        pb_string(&m->hand_over->migration_id, vm->hand_over_id);
        pb_string(&m->hand_over->to_host, vm->hand_over_to);
        m->hand_over->generation = vm->hand_over_generation;
    }
    if (vm->owner[0])
        vm_message_now(c, vm, m);
    const struct end *end = ends_find(ends, end_count, vm->id);
    if (end) {
        m->last_end = pb_new(&drover__vm_end__descriptor);
        pb_string(&m->last_end->why, end->why);
        pb_string(&m->last_end->host, end->host);
        m->last_end->at_ms = end->at_ms;
    }
    return m;
}

static void vm_list(struct api_call *call)
{
    const Drover__VmListRequest *request = (const void *)call->message;
    struct err err;
    struct state_vm one, *vms = NULL;
    cleanup_free struct end *ends = NULL;
    cleanup_pb Drover__VmListReply *reply = pb_new(&drover__vm_list_reply__descriptor);
    size_t end_count = ends_all(call->c->state, &ends);
    if (request->name[0]) {
        if (api_vm(call, request->name, &err, &one) < 0) {
            api_fail(call, &err);
            return;
        }
        PB_ADD(reply, vms, vm_message(call->c, &one, ends, end_count));
    } else {
        uint32_t limit = api_limit(request->limit, LIST_MAX);
        size_t count = state_vms(call->c->state, request->after, limit + 1, &vms);
        size_t used = 0;
        bool room = true;
        for (size_t i = 0; i < count && i < limit && room; i++) {
            PB_ADD(reply, vms, vm_message(call->c, &vms[i], ends, end_count));
            room = api_room(&used, reply->vms[i]);
        }
        reply->more = reply->n_vms < count;
        free(vms);
    }
    api_reply(call, reply);
}

/* --- console: handed on to the host that owns the VM --- */

struct console_call {
    struct api_call *call;
    const ProtobufCMessageDescriptor *reply;
};

static void console_answered(void *user, const struct err *err, const uint8_t *body, size_t len)
{
    struct console_call *console = user;
    struct err broken;
    cleanup_pb ProtobufCMessage *reply = err ? NULL : bounded_unpack(console->reply, body, len);
    if (!err && !reply) {
        err_set(&broken, ERR_PROTOCOL, "the host's answer cannot be decoded");
        err = &broken;
    }
    if (err)
        api_fail(console->call, err);
    else
        api_reply(console->call, reply);
    free(console);
}

static void console_forward(struct api_call *call, char **vm_name, uint32_t method,
    const ProtobufCMessageDescriptor *reply, uint32_t deadline_ms)
{
    struct err err;
    struct state_vm vm;
    int rc = api_vm(call, *vm_name, &err, &vm);
    if (rc == 0 && !vm.owner[0])
        rc = err_set(&err, ERR_WRONG_STATE,
            "VM %s does not run, so it has no console; start it first: `drover vm start %s`", vm.name, vm.name);
    if (rc < 0) {
        api_fail(call, &err);
        return;
    }
    pb_string(vm_name, vm.id);
    struct console_call *console = mem_zalloc(sizeof *console);
    *console = (struct console_call){call, reply};
    fleet_call(call->c->loop, call->c->fleet, vm.owner, method, call->message, deadline_ms, console_answered, console);
}

static void console_read(struct api_call *call)
{
    Drover__ConsoleReadRequest *request = (void *)call->message;
    request->max_bytes = api_limit(request->max_bytes, CONSOLE_MAX);
    if (request->wait_ms > CONSOLE_WAIT_MS)
        request->wait_ms = CONSOLE_WAIT_MS;
    console_forward(call, &request->vm, DROVER__METHOD__CONSOLE_READ, &drover__console_read_reply__descriptor,
        request->wait_ms + CALL_MS);
}

static void console_write(struct api_call *call)
{
    Drover__ConsoleWriteRequest *request = (void *)call->message;
    struct err err;
    if (request->data.len > CONSOLE_MAX) {
        err_set(&err, ERR_INVALID, "console: %zu bytes at once; up to %u are allowed", request->data.len, CONSOLE_MAX);
        api_fail(call, &err);
        return;
    }
    console_forward(
        call, &request->vm, DROVER__METHOD__CONSOLE_WRITE, &drover__console_write_reply__descriptor, CALL_MS);
}

const struct api_method api_vm_methods[] = {
    {DROVER__METHOD__VM_CREATE, API_CHANGE, &drover__vm_create_request__descriptor, vm_create},
    {DROVER__METHOD__VM_START, API_CHANGE, &drover__vm_start_request__descriptor, vm_start},
    {DROVER__METHOD__VM_STOP, API_CHANGE, &drover__vm_stop_request__descriptor, vm_stop},
    {DROVER__METHOD__VM_DELETE, API_CHANGE, &drover__vm_delete_request__descriptor, vm_delete},
    {DROVER__METHOD__VM_SET, API_CHANGE, &drover__vm_set_request__descriptor, vm_set},
    {DROVER__METHOD__VM_LIST, API_READ, &drover__vm_list_request__descriptor, vm_list},
    {DROVER__METHOD__VM_MIGRATE, API_CHANGE, &drover__vm_migrate_request__descriptor, vm_migrate},
    {DROVER__METHOD__CONSOLE_READ, API_CHANGE, &drover__console_read_request__descriptor, console_read},
    {DROVER__METHOD__CONSOLE_WRITE, API_CHANGE, &drover__console_write_request__descriptor, console_write},
    {0},
};
