/* The cluster, its hosts and its members. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "controller/api/call.h"
#include "controller/api/validate.h"
#include "controller/fleet/claim.h"
#include "controller/placement/baseline.h"
#include "controller/placement/evacuation.h"

#define LIST_MAX  1000u
#define LIMIT_MAX 64u /* migrations at once */

static void member_message(const struct controller *c, const struct replica_member *member, const char *leader,
    Drover__ClusterStatusReply *reply)
{
    struct state_member known;
    static const char *const roles[] = {"spare", "standby", "voter"};
    Drover__Member *m = pb_new(&drover__member__descriptor);
    pb_string(&m->name, member->name);
    pb_string(&m->raft_address, member->address);
    if (state_member(c->state, member->name, &known))
        pb_string(&m->api_address, known.api_address);
    pb_string(&m->role, roles[member->role]);
    m->leader = strcmp(member->name, leader) == 0;
    m->lost_its_log = replica_lost_its_log(c->replica, member->name);
    PB_ADD(reply, members, m);
}

static uint32_t vms_running(const struct controller *c, const struct fleet_host *host)
{
    uint32_t count = 0;
    for (size_t i = 0; i < host->partition_count; i++) {
        struct state_vm vm;
        Drover__PartitionState state = host->partitions[i].state;
        if (state == DROVER__PARTITION_STATE__PARTITION_INCOMING && state_vm(c->state, host->partitions[i].vm_id, &vm))
            state = fleet_vm_state(host, &host->partitions[i], &vm);
        count +=
            state == DROVER__PARTITION_STATE__PARTITION_RUNNING || state == DROVER__PARTITION_STATE__PARTITION_OUTGOING;
    }
    return count;
}

/* VMs that some host may run, and none that is heard. */
static uint32_t vms_unknown(const struct controller *c, uint64_t now_ms)
{
    uint32_t count = 0;
    struct state_vm *vms;
    size_t all = state_vms(c->state, "", INT64_MAX, &vms);
    for (size_t i = 0; i < all; i++) {
        const struct fleet_host *host = vms[i].owner[0] ? fleet_find(c->fleet, vms[i].owner) : NULL;
        count += vms[i].owner[0] && (!c->leader || !host || !fleet_up(c->fleet, host, now_ms));
    }
    free(vms);
    return count;
}

static void fleet_sum(const struct controller *c, Drover__ClusterStatusReply *reply)
{
    struct load load = {0};
    uint64_t now_ms = clock_now_ms();
    reply->capacity = pb_new(&drover__capacity__descriptor);
    reply->load = pb_new(&drover__load__descriptor);
    for (size_t i = 0; i < fleet_count(c->fleet); i++) {
        const struct fleet_host *host = fleet_at(c->fleet, i);
        if (!fleet_up(c->fleet, host, now_ms))
            continue;
        reply->vms_running += vms_running(c, host);
        reply->hosts_up++;
        load = load_add(&load, &host->load);
        const Drover__Capacity *capacity = host->facts ? host->facts->capacity : NULL;
        if (!capacity)
            continue;
        reply->capacity->cpu_cores += capacity->cpu_cores;
        reply->capacity->memory_bytes += capacity->memory_bytes;
        reply->capacity->disk_iops += capacity->disk_iops;
    }
    load_write(&load, reply->load);
}

static void cluster_status(struct api_call *call)
{
    struct controller *c = call->c;
    struct replica_status status;
    struct state_counts counts;
    struct replica_member members[OPTIONS_MEMBERS_MAX];
    cleanup_pb Drover__ClusterStatusReply *reply = pb_new(&drover__cluster_status_reply__descriptor);
    replica_status(c->replica, &status);
    state_counts(c->state, &counts);
    pb_string(&reply->answered_by, c->options.name);
    pb_string(&reply->leader, status.leader_name);
    reply->term = status.term;
    reply->commit_index = status.commit_index;
    reply->applied_index = status.applied_index;
    size_t count = replica_members(c->replica, members, OPTIONS_MEMBERS_MAX);
    for (size_t i = 0; i < count && i < OPTIONS_MEMBERS_MAX; i++)
        member_message(c, &members[i], status.leader_name, reply);
    reply->hosts = counts.hosts;
    reply->vms = counts.vms;
    reply->jobs_active = counts.jobs_active;
    reply->optimizer_automatic = placement_automatic(c->placement);
    struct optimizer_limits limits;
    evacuation_limits(c->state, &limits);
    reply->limits = pb_new(&drover__migration_limits__descriptor);
    reply->limits->outgoing = limits.outgoing;
    reply->limits->incoming = limits.incoming;
    reply->limits->link = limits.link;
    fleet_sum(c, reply);
    reply->vms_unknown = vms_unknown(c, clock_now_ms());
    api_reply(call, reply);
}

static void cluster_cpu(struct api_call *call)
{
    struct state_host *known;
    struct state *state = call->c->state;
    size_t count = state_hosts(state, "", LIST_MAX, &known), told = 0;
    struct baseline_host *hosts = mem_zalloc((count + 1) * sizeof *hosts);
    for (size_t i = 0; i < count; i++) {
        hosts[told] = (struct baseline_host){known[i].name, state_host_facts(state, known[i].name)};
        told += hosts[told].facts != NULL;
    }
    cleanup_pb Drover__ClusterCpuReply *reply = baseline_report(hosts, told);
    for (size_t i = 0; i < told; i++)
        pb_free((void *)(uintptr_t)hosts[i].facts);
    free(hosts);
    free(known);
    api_reply(call, reply);
}

static void record_job(struct api_call *call, Drover__JobKind kind, const char *target, Drover__Effect *effect)
{
    Drover__JobCreate *create = api_job_new(kind, target);
    PB_ADD(create->data, effects, effect);
    job_add_steps(create, false);
    api_job(call, create);
}

static int new_key(const struct api_call *call, const char *text, struct err *err, uint8_t out[KEY_BYTES])
{
    struct principal holder;
    const struct options *options = &call->c->options;
    if (key_parse(text, err, out) < 0)
        return -1;
    bool taken = state_principal(call->c->state, out, &holder);
    for (size_t i = 0; i < options->admin_count && !taken; i++)
        if (memcmp(options->admins[i].public_key, out, KEY_BYTES) == 0) {
            taken = true;
            snprintf(holder.name, sizeof holder.name, "%s", options->admins[i].name);
        }
    if (taken)
        return err_set(
            err, ERR_EXISTS, "this public key belongs to %s already; make another with `drover keygen`", holder.name);
    return 0;
}

static void host_add(struct api_call *call)
{
    const Drover__HostAddRequest *request = (const void *)call->message;
    struct err err;
    struct state_host host;
    uint8_t key[KEY_BYTES];
    int rc = validate_name("host", request->name, &err);
    if (rc == 0 && state_host(call->c->state, request->name, &host))
        rc = err_set(
            &err, ERR_EXISTS, "host %s exists already; `drover host remove %s` takes it out", host.name, host.name);
    if (rc == 0 && new_key(call, request->public_key, &err, key) < 0)
        rc = err_wrap(&err, "host %s", request->name);
    if (rc < 0)
        api_fail(call, &err);
    else
        record_job(call, DROVER__JOB_KIND__JOB_HOST_ADD, request->name, effect_host_insert(request->name, key));
}

/* What is silent may run its VMs all the same, and nobody but itself can say that it does not. */
static int host_keeps_vms(const struct controller *c, const struct state_host *host, struct err *err)
{
    const struct fleet_host *session = fleet_find(c->fleet, host->name);
    const char *them = host->vms == 1 ? "it" : "them";
    err_set(err, ERR_WRONG_STATE, "host %s has %u VM%s", host->name, host->vms, host->vms == 1 ? "" : "s");
    size_t used = strlen(err->message);
    if (session && fleet_up(c->fleet, session, clock_now_ms()))
        snprintf(err->message + used, sizeof err->message - used, "; migrate or stop %s first", them);
    else
        snprintf(err->message + used, sizeof err->message - used,
            " and is not heard; it may still run %s, so nobody else does. If its machine is off, and for good, `drover "
            "host remove %s --dead` frees %s",
            them, host->name, them);
    return -1;
}

/* Nobody's word makes a host dead that is heard. */
static int host_silent(const struct controller *c, const struct state_host *host, struct err *err)
{
    const struct fleet_host *session = fleet_find(c->fleet, host->name);
    if (!session || !fleet_up(c->fleet, session, clock_now_ms()))
        return 0;
    return err_set(err, ERR_WRONG_STATE, "host %s is heard, so it is not dead; `drover host evacuate %s` empties it",
        host->name, host->name);
}

static void host_remove(struct api_call *call)
{
    const Drover__HostRemoveRequest *request = (const void *)call->message;
    struct err err;
    struct state_host host;
    int rc = validate_name("host", request->name, &err);
    if (rc == 0 && !state_host(call->c->state, request->name, &host))
        rc = err_set(&err, ERR_NOT_FOUND, "host %s does not exist; `drover host list` shows all", request->name);
    if (rc == 0 && request->dead)
        rc = host_silent(call->c, &host, &err);
    else if (rc == 0 && host.vms)
        rc = host_keeps_vms(call->c, &host, &err);
    if (rc < 0)
        api_fail(call, &err);
    else
        record_job(call, DROVER__JOB_KIND__JOB_HOST_REMOVE, request->name,
            request->dead ? effect_host_lost(request->name) : effect_host_delete(request->name));
}

static int host_free(const struct api_call *call, const char *name, struct err *err)
{
    struct state_host host;
    if (validate_name("host", name, err) < 0)
        return -1;
    if (!state_host(call->c->state, name, &host))
        return err_set(err, ERR_NOT_FOUND, "host %s does not exist; `drover host list` shows all", name);
    uint64_t job = job_evacuation(call->c->state, name);
    if (job)
        return err_set(err, ERR_BUSY,
            "host %s is being emptied by job %" PRIu64 "; `drover job cancel %" PRIu64 "` ends that", name, job, job);
    return 0;
}

static void host_set(struct api_call *call)
{
    const Drover__HostSetRequest *request = (const void *)call->message;
    struct err err;
    if (host_free(call, request->name, &err) < 0)
        api_fail(call, &err);
    else
        record_job(call, DROVER__JOB_KIND__JOB_HOST_SET, request->name,
            effect_host_maintenance(request->name, request->maintenance));
}

static void host_evacuate(struct api_call *call)
{
    const Drover__HostEvacuateRequest *request = (const void *)call->message;
    struct err err;
    if (host_free(call, request->name, &err) < 0 ||
        validate_text("reason", request->reason, VALIDATE_TEXT_MAX, &err) < 0) {
        api_fail(call, &err);
        return;
    }
    Drover__JobCreate *create = api_job_new(DROVER__JOB_KIND__JOB_HOST_EVACUATE, request->name);
    pb_string(&create->reason, request->reason);
    job_add_steps(create, false);
    api_job(call, create);
}

static int limit_put(Drover__JobCreate *create, const char *name, uint32_t value, struct err *err)
{
    char text[16];
    if (value > LIMIT_MAX)
        return err_set(err, ERR_INVALID, "%s: %u at once; up to %u are allowed", name, value, LIMIT_MAX);
    snprintf(text, sizeof text, "%u", value);
    if (value)
        PB_ADD(create->data, effects, effect_setting_put(name, text));
    return 0;
}

static void cluster_set(struct api_call *call)
{
    const Drover__ClusterSetRequest *request = (const void *)call->message;
    const Drover__MigrationLimits none = DROVER__MIGRATION_LIMITS__INIT, *limits = request->limits;
    struct err err;
    Drover__JobCreate *create = api_job_new(DROVER__JOB_KIND__JOB_CLUSTER_SET, "cluster");
    limits = limits ? limits : &none;
    int rc = limit_put(create, "migration.outgoing", limits->outgoing, &err);
    if (rc == 0)
        rc = limit_put(create, "migration.incoming", limits->incoming, &err);
    if (rc == 0)
        rc = limit_put(create, "migration.link", limits->link, &err);
    if (rc == 0 && create->data->n_effects == 0)
        rc = err_set(&err, ERR_INVALID, "nothing is to be set; `drover help cluster set` shows what can be");
    if (rc < 0) {
        pb_free(create);
        api_fail(call, &err);
        return;
    }
    job_add_steps(create, false);
    api_job(call, create);
}

static Drover__Host *host_message(struct controller *c, const struct state_host *host)
{
    Drover__Host *m = pb_new(&drover__host__descriptor);
    char key[KEY_TEXT];
    uint64_t now_ms = clock_now_ms();
    key_format(host->public_key, key);
    pb_string(&m->name, host->name);
    pb_string(&m->public_key, key);
    m->facts = state_host_facts(c->state, host->name);
    m->vms = host->vms;
    m->added_ms = host->added_ms;
    m->maintenance = host->maintenance;
    const char *refused = claims_refused(c->claims, host->name, now_ms);
    if (refused)
        pb_string(&m->refused, refused);
    const struct fleet_host *session = fleet_find(c->fleet, host->name);
    bool up = session && fleet_up(c->fleet, session, now_ms);
    m->shutting_down = up && session->shutting_down;
    m->state = !c->leader   ? DROVER__HOST_STATE__HOST_UNKNOWN
               : up         ? DROVER__HOST_STATE__HOST_UP
               : host->seen ? DROVER__HOST_STATE__HOST_UNREACHABLE
                            : DROVER__HOST_STATE__HOST_NEW;
    if (!session)
        return m;
    struct load peak = load_ring_peak(&session->ring);
    m->load = pb_new(&drover__load__descriptor);
    m->peak = pb_new(&drover__load__descriptor);
    load_write(&session->load, m->load);
    load_write(&peak, m->peak);
    m->lease_left_ms = fleet_lease_left_ms(c->fleet, session, now_ms);
    pb_free(m->facts);
    m->facts = pb_copy(session->facts);
    return m;
}

/* They are long; who wants to know asks for one host, or for all at once with `cluster cpu`. */
static void processors_drop(Drover__HostFacts *facts)
{
    while (facts && facts->n_cpu_models)
        pb_free(facts->cpu_models[--facts->n_cpu_models]);
    while (facts && facts->n_cpu_features)
        free(facts->cpu_features[--facts->n_cpu_features]);
}

static void host_list(struct api_call *call)
{
    const Drover__HostListRequest *request = (const void *)call->message;
    struct err err;
    struct state_host one, *hosts = NULL;
    cleanup_pb Drover__HostListReply *reply = pb_new(&drover__host_list_reply__descriptor);
    if (request->name[0]) {
        if (api_host(call, request->name, &err) < 0) {
            api_fail(call, &err);
            return;
        }
        if (state_host(call->c->state, request->name, &one))
            PB_ADD(reply, hosts, host_message(call->c, &one));
    } else {
        uint32_t limit = api_limit(request->limit, LIST_MAX);
        size_t count = state_hosts(call->c->state, request->after, limit + 1, &hosts);
        size_t used = 0;
        bool room = true;
        for (size_t i = 0; i < count && i < limit && room; i++) {
            PB_ADD(reply, hosts, host_message(call->c, &hosts[i]));
            processors_drop(reply->hosts[i]->facts);
            room = api_room(&used, reply->hosts[i]);
        }
        reply->more = reply->n_hosts < count;
        free(hosts);
    }
    api_reply(call, reply);
}

/* --- members --- */

static Drover__MemberPut *member_put(
    const char *name, const uint8_t key[KEY_BYTES], const char *raft_address, const char *api_address)
{
    Drover__MemberPut *m = pb_new(&drover__member_put__descriptor);
    pb_string(&m->name, name);
    pb_bytes(&m->public_key, key, KEY_BYTES);
    pb_string(&m->raft_address, raft_address);
    pb_string(&m->api_address, api_address);
    return m;
}

static void member_add(struct api_call *call)
{
    const Drover__MemberAddRequest *request = (const void *)call->message;
    struct err err;
    struct state_member member;
    struct state_counts counts;
    uint8_t key[KEY_BYTES];
    state_counts(call->c->state, &counts);
    int rc = validate_name("member", request->name, &err);
    if (rc == 0 && state_member(call->c->state, request->name, &member))
        rc = err_set(&err, ERR_EXISTS, "member %s exists already; `drover cluster status` shows all", member.name);
    if (rc == 0 && counts.members >= OPTIONS_MEMBERS_MAX)
        rc = err_set(&err, ERR_CAPACITY, "a cluster has at most %d members", OPTIONS_MEMBERS_MAX);
    if (rc == 0 &&
        (validate_address(request->raft_address, &err) < 0 || validate_address(request->api_address, &err) < 0 ||
            new_key(call, request->public_key, &err, key) < 0))
        rc = err_wrap(&err, "member %s", request->name);
    if (rc < 0) {
        api_fail(call, &err);
        return;
    }
    Drover__JobCreate *create = api_job_new(DROVER__JOB_KIND__JOB_MEMBER_ADD, request->name);
    create->data->member = member_put(request->name, key, request->raft_address, request->api_address);
    PB_ADD(create->data, effects, effect_member_put(request->name, key, request->raft_address, request->api_address));
    job_add_steps(create, false);
    api_job(call, create);
}

static void member_remove(struct api_call *call)
{
    const Drover__MemberRemoveRequest *request = (const void *)call->message;
    struct err err;
    struct state_member member;
    struct state_counts counts;
    state_counts(call->c->state, &counts);
    int rc = validate_name("member", request->name, &err);
    if (rc == 0 && !state_member(call->c->state, request->name, &member))
        rc = err_set(&err, ERR_NOT_FOUND, "member %s does not exist; `drover cluster status` shows all", request->name);
    if (rc == 0 && counts.members < 2)
        rc = err_set(&err, ERR_WRONG_STATE, "member %s is the only one left", request->name);
    if (rc < 0) {
        api_fail(call, &err);
        return;
    }
    Drover__JobCreate *create = api_job_new(DROVER__JOB_KIND__JOB_MEMBER_REMOVE, member.name);
    create->data->member = member_put(member.name, member.public_key, member.raft_address, member.api_address);
    PB_ADD(create->data, effects, effect_member_delete(member.name));
    job_add_steps(create, false);
    api_job(call, create);
}

const struct api_method api_cluster_methods[] = {
    {DROVER__METHOD__CLUSTER_STATUS, API_READ, &drover__cluster_status_request__descriptor, cluster_status},
    {DROVER__METHOD__CLUSTER_CPU, API_READ, &drover__cluster_cpu_request__descriptor, cluster_cpu},
    {DROVER__METHOD__HOST_ADD, API_CHANGE, &drover__host_add_request__descriptor, host_add},
    {DROVER__METHOD__HOST_REMOVE, API_CHANGE, &drover__host_remove_request__descriptor, host_remove},
    {DROVER__METHOD__HOST_SET, API_CHANGE, &drover__host_set_request__descriptor, host_set},
    {DROVER__METHOD__HOST_EVACUATE, API_CHANGE, &drover__host_evacuate_request__descriptor, host_evacuate},
    {DROVER__METHOD__CLUSTER_SET, API_CHANGE, &drover__cluster_set_request__descriptor, cluster_set},
    {DROVER__METHOD__HOST_LIST, API_READ, &drover__host_list_request__descriptor, host_list},
    {DROVER__METHOD__MEMBER_ADD, API_CHANGE, &drover__member_add_request__descriptor, member_add},
    {DROVER__METHOD__MEMBER_REMOVE, API_CHANGE, &drover__member_remove_request__descriptor, member_remove},
    {0},
};
