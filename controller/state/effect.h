/* Constructors of changes, as they travel in commands. Each takes copies of its arguments; the caller takes the result
 * and usually hands it on with PB_ADD(update, effects, ...). What they mean is said in proto/state.proto. */
#ifndef CONTROLLER_STATE_EFFECT_H
#define CONTROLLER_STATE_EFFECT_H

#include <stdint.h>

#include "proto/keys.h"
#include "proto/state.pb-c.h"

Drover__Effect *effect_vm_insert(const char *id, const Drover__VmSpec *spec, const char *preferred_host);
Drover__Effect *effect_vm_delete(const char *vm_id);
Drover__Effect *effect_vm_grant(const char *vm_id, const char *host, uint64_t generation);
Drover__Effect *effect_vm_pin(const char *vm_id, const char *machine_type, const char *cpu_model);
Drover__Effect *effect_vm_release(const char *vm_id, const char *host, uint64_t generation, const char *migration_id);
Drover__Effect *effect_vm_renew(const char *vm_id, const char *host, uint64_t generation, const char *migration_id);
Drover__Effect *effect_vm_disk_put(const char *vm_id, const char *path, const char *new_path, const char *new_format);
/* As far as the definition says how the VM is moved; what it leaves at 0 stays as it is. */
Drover__Effect *effect_vm_policy_put(const char *vm_id, const Drover__VmSpec *policy);
Drover__Effect *effect_hand_over_allow(
    const char *vm_id, const char *from_host, uint64_t generation, const char *migration_id, const char *to_host);
Drover__Effect *effect_hand_over_taken(const char *vm_id, const char *migration_id);
Drover__Effect *effect_hand_over_clear(const char *vm_id, const char *migration_id);
Drover__Effect *effect_host_insert(const char *name, const uint8_t public_key[KEY_BYTES]);
Drover__Effect *effect_host_delete(const char *name);
Drover__Effect *effect_host_lost(const char *name);
Drover__Effect *effect_host_maintenance(const char *name, bool on);
Drover__Effect *effect_host_facts_put(const char *name, const Drover__HostFacts *facts);
Drover__Effect *effect_member_put(
    const char *name, const uint8_t public_key[KEY_BYTES], const char *raft_address, const char *api_address);
Drover__Effect *effect_member_delete(const char *name);
Drover__Effect *effect_setting_put(const char *name, const char *value);
Drover__Effect *effect_job_create(Drover__JobCreate *create); /* takes it */
Drover__Effect *effect_job_cancel(uint64_t job_id, const char *actor);

#endif
