#include "controller/state/effect.h"

#include "controller/pb.h"

/* An effect of the given case around a new message, which the caller fills. */
#define EFFECT(case_name, field, type)                                                                                 \
    Drover__Effect *effect = pb_new(&drover__effect__descriptor);                                                      \
    effect->change_case = DROVER__EFFECT__CHANGE_##case_name;                                                          \
    type *c = effect->field = pb_new(&drover__##field##__descriptor)

Drover__Effect *effect_vm_insert(const char *id, const Drover__VmSpec *spec, const char *preferred_host)
{
    EFFECT(VM_INSERT, vm_insert, Drover__VmInsert);
    pb_string(&c->id, id);
    c->spec = pb_copy(spec);
    pb_string(&c->preferred_host, preferred_host);
    return effect;
}

Drover__Effect *effect_vm_delete(const char *vm_id)
{
    EFFECT(VM_DELETE, vm_delete, Drover__VmDelete);
    pb_string(&c->vm_id, vm_id);
    return effect;
}

Drover__Effect *effect_vm_grant(const char *vm_id, const char *host, uint64_t generation)
{
    EFFECT(VM_GRANT, vm_grant, Drover__VmGrant);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->host, host);
    c->generation = generation;
    return effect;
}

Drover__Effect *effect_vm_pin(const char *vm_id, const char *machine_type, const char *cpu_model)
{
    EFFECT(VM_PIN, vm_pin, Drover__VmPin);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->machine_type, machine_type);
    pb_string(&c->cpu_model, cpu_model);
    return effect;
}

Drover__Effect *effect_vm_release(const char *vm_id, const char *host, uint64_t generation, const char *migration_id)
{
    EFFECT(VM_RELEASE, vm_release, Drover__VmRelease);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->host, host);
    c->generation = generation;
    pb_string(&c->migration_id, migration_id);
    return effect;
}

Drover__Effect *effect_vm_renew(const char *vm_id, const char *host, uint64_t generation, const char *migration_id)
{
    EFFECT(VM_RENEW, vm_renew, Drover__VmRenew);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->host, host);
    c->generation = generation;
    pb_string(&c->migration_id, migration_id);
    return effect;
}

Drover__Effect *effect_vm_disk_put(const char *vm_id, const char *path, const char *new_path, const char *new_format)
{
    EFFECT(VM_DISK_PUT, vm_disk_put, Drover__VmDiskPut);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->path, path);
    pb_string(&c->new_path, new_path);
    pb_string(&c->new_format, new_format);
    return effect;
}

Drover__Effect *effect_vm_policy_put(const char *vm_id, const Drover__VmSpec *policy)
{
    EFFECT(VM_POLICY_PUT, vm_policy_put, Drover__VmPolicyPut);
    pb_string(&c->vm_id, vm_id);
    c->max_downtime_ms = policy->max_downtime_ms;
    c->migration_mode = policy->migration_mode;
    c->on_no_convergence = policy->on_no_convergence;
    return effect;
}

Drover__Effect *effect_hand_over_taken(const char *vm_id, const char *migration_id)
{
    EFFECT(HAND_OVER_TAKEN, hand_over_taken, Drover__HandOverTaken);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->migration_id, migration_id);
    return effect;
}

Drover__Effect *effect_hand_over_clear(const char *vm_id, const char *migration_id)
{
    EFFECT(HAND_OVER_CLEAR, hand_over_clear, Drover__HandOverClear);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->migration_id, migration_id);
    return effect;
}

Drover__Effect *effect_host_insert(const char *name, const uint8_t public_key[KEY_BYTES])
{
    EFFECT(HOST_INSERT, host_insert, Drover__HostInsert);
    pb_string(&c->name, name);
    pb_bytes(&c->public_key, public_key, KEY_BYTES);
    return effect;
}

Drover__Effect *effect_host_delete(const char *name)
{
    EFFECT(HOST_DELETE, host_delete, Drover__HostDelete);
    pb_string(&c->name, name);
    return effect;
}

Drover__Effect *effect_host_lost(const char *name)
{
    EFFECT(HOST_LOST, host_lost, Drover__HostLost);
    pb_string(&c->name, name);
    return effect;
}

Drover__Effect *effect_host_maintenance(const char *name, bool on)
{
    EFFECT(HOST_MAINTENANCE, host_maintenance, Drover__HostMaintenance);
    pb_string(&c->name, name);
    c->on = on;
    return effect;
}

Drover__Effect *effect_host_facts_put(const char *name, const Drover__HostFacts *facts)
{
    EFFECT(HOST_FACTS_PUT, host_facts_put, Drover__HostFactsPut);
    pb_string(&c->name, name);
    c->facts = pb_copy(facts);
    return effect;
}

Drover__Effect *effect_member_put(
    const char *name, const uint8_t public_key[KEY_BYTES], const char *raft_address, const char *api_address)
{
    EFFECT(MEMBER_PUT, member_put, Drover__MemberPut);
    pb_string(&c->name, name);
    pb_bytes(&c->public_key, public_key, KEY_BYTES);
    pb_string(&c->raft_address, raft_address);
    pb_string(&c->api_address, api_address);
    return effect;
}

Drover__Effect *effect_member_delete(const char *name)
{
    EFFECT(MEMBER_DELETE, member_delete, Drover__MemberDelete);
    pb_string(&c->name, name);
    return effect;
}

Drover__Effect *effect_setting_put(const char *name, const char *value)
{
    EFFECT(SETTING_PUT, setting_put, Drover__SettingPut);
    pb_string(&c->name, name);
    pb_string(&c->value, value);
    return effect;
}

Drover__Effect *effect_job_cancel(uint64_t job_id, const char *actor)
{
    EFFECT(JOB_CANCEL, job_cancel, Drover__JobCancel);
    c->job_id = job_id;
    pb_string(&c->actor, actor);
    return effect;
}

Drover__Effect *effect_hand_over_allow(
    const char *vm_id, const char *from_host, uint64_t generation, const char *migration_id, const char *to_host)
{
    EFFECT(HAND_OVER_ALLOW, hand_over_allow, Drover__HandOverAllow);
    pb_string(&c->vm_id, vm_id);
    pb_string(&c->from_host, from_host);
    c->generation = generation;
    c->hand_over = pb_new(&drover__hand_over__descriptor);
    pb_string(&c->hand_over->migration_id, migration_id);
    pb_string(&c->hand_over->to_host, to_host);
    c->hand_over->generation = generation + 1;
    return effect;
}

Drover__Effect *effect_job_create(Drover__JobCreate *create)
{
    Drover__Effect *effect = pb_new(&drover__effect__descriptor);
    effect->change_case = DROVER__EFFECT__CHANGE_JOB_CREATE;
    effect->job_create = create;
    return effect;
}
