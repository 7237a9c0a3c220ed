/* Changes and their premises. The changes of VMs are the log's side of the ownership protocol: who may run a VM, under
 * which generation, and whom a migration may hand it to. Each is one guarded UPDATE after checks that say what is
 * wrong. */
#include <inttypes.h>
#include <string.h>

#include "controller/pb.h"
#include "controller/state/sql.h"

/* The VM, unless another job holds it: a job changes only its own VM, and changes without a job only free ones. */
static int vm_for_change(struct state *state, const char *id, uint64_t job_id, struct err *err, struct state_vm *out)
{
    struct state_vm vm;
    if (!state_vm(state, id, &vm))
        return err_set(err, ERR_NOT_FOUND, "VM with id %.63s does not exist (any more)", id);
    if (vm.job_id != job_id)
        return err_set(err, ERR_BUSY, "VM %s is held by job %" PRIu64 "; `drover job watch %" PRIu64 "`", vm.name,
            vm.job_id, vm.job_id);
    *out = vm;
    return 0;
}

static int vm_owned_by(const struct state_vm *vm, const char *host, struct err *err)
{
    if (strcmp(vm->owner, host) != 0)
        return err_set(err, ERR_WRONG_STATE, "VM %s is owned by %s, not by host %.63s", vm->name,
            vm->owner[0] ? vm->owner : "nobody", host);
    return 0;
}

/* With a migration id the hand-over under way must be that one; without, there must be none. */
static int vm_hand_over_is(const struct state_vm *vm, const char *migration_id, struct err *err)
{
    if (strcmp(vm->hand_over_id, migration_id) == 0)
        return 0;
    if (vm->hand_over_id[0])
        return err_set(err, ERR_WRONG_STATE, "VM %s may be handed over by migration %s", vm->name, vm->hand_over_id);
    return err_set(err, ERR_WRONG_STATE, "VM %s: migration %.63s has no leave to hand it over", vm->name, migration_id);
}

/* A host that may get a VM. */
static int host_takes(struct state *state, const char *name, struct err *err)
{
    struct state_host host;
    if (!state_host(state, name, &host))
        return err_set(err, ERR_NOT_FOUND, "host %.63s does not exist; `drover host list` shows all", name);
    if (host.maintenance)
        return err_set(err, ERR_WRONG_STATE,
            "host %s is in maintenance and gets no VMs; choose another, or `drover host set %s --maintenance off`",
            host.name, host.name);
    return 0;
}

static int host_known(struct state *state, const char *name, struct err *err)
{
    struct state_host host;
    if (!state_host(state, name, &host))
        return err_set(err, ERR_NOT_FOUND, "host %.63s does not exist; `drover host list` shows all", name);
    return 0;
}

static int vm_insert(struct state *state, const Drover__VmInsert *c, uint64_t job_id, int64_t now_ms, struct err *err)
{
    cleanup_buf struct buf spec = {0};
    struct state_vm vm;
    if (state_vm_named(state, c->spec->name, &vm))
        return err_set(err, ERR_EXISTS, "VM %s exists already; choose another name, or delete it first", c->spec->name);
    pb_pack(c->spec, &spec);
    int rc = sql_run(state,
        "INSERT INTO vms (id, name, spec, vcpus, memory_bytes, preferred_host, job_id, created_ms) VALUES (?, ?, ?, ?, "
        "?, ?, ?, ?)",
        "ttbiitii", c->id, c->spec->name, spec.data, spec.len, (int64_t)c->spec->vcpus, (int64_t)c->spec->memory_bytes,
        c->preferred_host, (int64_t)job_id, now_ms);
    if (rc != 1)
        return err_set(err, ERR_EXISTS, "VM %s: its id is taken", c->spec->name);
    for (size_t i = 0; i < c->spec->n_nics; i++)
        if (sql_run(state, "INSERT INTO nics (mac, vm_id) VALUES (lower(?), ?)", "tt", c->spec->nics[i]->mac, c->id) <
            0)
            return err_set(err, ERR_EXISTS, "VM %s: MAC address %s is in use; leave it out to get a free one",
                c->spec->name, c->spec->nics[i]->mac);
    return 0;
}

static int vm_delete(struct state *state, const Drover__VmDelete *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0)
        return -1;
    if (vm.owner[0])
        return err_set(err, ERR_WRONG_STATE, "VM %s runs on host %s; stop it first: `drover vm stop %s`", vm.name,
            vm.owner, vm.name);
    sql_run(state, "DELETE FROM vms WHERE id = ?", "t", c->vm_id);
    return 0;
}

static int vm_grant(struct state *state, const Drover__VmGrant *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0 || host_takes(state, c->host, err) < 0)
        return -1;
    if (vm.owner[0])
        return err_set(err, ERR_WRONG_STATE, "VM %s is owned by host %s already", vm.name, vm.owner);
    if (c->generation != vm.generation + 1)
        return err_set(err, ERR_WRONG_STATE, "VM %s has generation %" PRIu64 ", so %" PRIu64 " cannot be granted",
            vm.name, vm.generation, c->generation);
    sql_run(state, "UPDATE vms SET owner = ?, generation = ?, desired = 1 WHERE id = ?", "tit", c->host,
        (int64_t)c->generation, c->vm_id);
    return 0;
}

/* The guest sees both in its hardware: what it has once been started with, it keeps. */
static int vm_pin(struct state *state, const Drover__VmPin *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    cleanup_buf struct buf packed = {0};
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0)
        return -1;
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(state, c->vm_id);
    if (!spec->machine_type[0])
        pb_string(&spec->machine_type, c->machine_type);
    if (!spec->cpu_model[0])
        pb_string(&spec->cpu_model, c->cpu_model);
    pb_pack(spec, &packed);
    sql_run(state, "UPDATE vms SET spec = ? WHERE id = ?", "bt", packed.data, packed.len, c->vm_id);
    return 0;
}

static int vm_release(struct state *state, const Drover__VmRelease *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0 || vm_owned_by(&vm, c->host, err) < 0 ||
        vm_hand_over_is(&vm, c->migration_id, err) < 0)
        return -1;
    if (vm.generation != c->generation)
        return err_set(err, ERR_WRONG_STATE, "VM %s has generation %" PRIu64 ", not %" PRIu64, vm.name, vm.generation,
            c->generation);
    sql_run(state,
        "UPDATE vms SET owner = NULL, hand_over_id = NULL, hand_over_to = NULL, hand_over_generation = 0,"
        " generation = generation + CASE WHEN hand_over_id IS NULL THEN 1 ELSE 2 END, desired = 0 WHERE id = ?",
        "t", c->vm_id);
    return 0;
}

static int vm_renew(struct state *state, const Drover__VmRenew *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0 || vm_owned_by(&vm, c->host, err) < 0 ||
        vm_hand_over_is(&vm, c->migration_id, err) < 0)
        return -1;
    if (c->generation <= vm.generation || c->generation <= vm.hand_over_generation)
        return err_set(
            err, ERR_WRONG_STATE, "VM %s: generation %" PRIu64 " is not a later one", vm.name, c->generation);
    sql_run(state,
        "UPDATE vms SET generation = ?, hand_over_id = NULL, hand_over_to = NULL, hand_over_generation = 0 WHERE id = "
        "?",
        "it", (int64_t)c->generation, c->vm_id);
    return 0;
}

static int vm_disk_put(struct state *state, const Drover__VmDiskPut *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0)
        return -1;
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(state, c->vm_id);
    size_t i = 0;
    while (spec && i < spec->n_disks && strcmp(spec->disks[i]->path, c->path) != 0)
        i++;
    if (!spec || i == spec->n_disks)
        return err_set(err, ERR_WRONG_STATE, "VM %s has no disk %.512s (any more)", vm.name, c->path);
    pb_string(&spec->disks[i]->path, c->new_path);
    pb_string(&spec->disks[i]->format, c->new_format);
    cleanup_buf struct buf packed = {0};
    pb_pack(spec, &packed);
    sql_run(state, "UPDATE vms SET spec = ? WHERE id = ?", "bt", packed.data, packed.len, c->vm_id);
    return 0;
}

static int vm_policy_put(struct state *state, const Drover__VmPolicyPut *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    cleanup_buf struct buf packed = {0};
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0)
        return -1;
    cleanup_pb Drover__VmSpec *spec = state_vm_spec(state, c->vm_id);
    if (c->max_downtime_ms)
        spec->max_downtime_ms = c->max_downtime_ms;
    if (c->migration_mode != DROVER__MIGRATION_MODE__MIGRATION_MODE_DEFAULT)
        spec->migration_mode = c->migration_mode;
    if (c->on_no_convergence != DROVER__MIGRATION_STUCK__MIGRATION_STUCK_DEFAULT)
        spec->on_no_convergence = c->on_no_convergence;
    pb_pack(spec, &packed);
    sql_run(state, "UPDATE vms SET spec = ? WHERE id = ?", "bt", packed.data, packed.len, c->vm_id);
    return 0;
}

static int hand_over_allow(struct state *state, const Drover__HandOverAllow *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    const Drover__HandOver *h = c->hand_over;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0 || vm_owned_by(&vm, c->from_host, err) < 0 ||
        vm_hand_over_is(&vm, "", err) < 0 || host_takes(state, h->to_host, err) < 0)
        return -1;
    if (strcmp(h->to_host, vm.owner) == 0)
        return err_set(err, ERR_INVALID, "VM %s is on host %s already", vm.name, vm.owner);
    if (vm.generation != c->generation || h->generation != vm.generation + 1)
        return err_set(err, ERR_WRONG_STATE, "VM %s has generation %" PRIu64 " by now", vm.name, vm.generation);
    int rc = sql_run(state, "UPDATE vms SET hand_over_id = ?, hand_over_to = ?, hand_over_generation = ? WHERE id = ?",
        "ttit", h->migration_id, h->to_host, (int64_t)h->generation, c->vm_id);
    return rc == 1 ? 0 : err_set(err, ERR_EXISTS, "migration id %.63s is in use", h->migration_id);
}

static int hand_over_taken(
    struct state *state, const Drover__HandOverTaken *c, uint64_t job_id, int64_t now_ms, struct err *err)
{
    struct state_vm vm;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0 || vm_hand_over_is(&vm, c->migration_id, err) < 0)
        return -1;
    sql_run(state,
        "UPDATE vms SET owner = hand_over_to, generation = hand_over_generation, moved_ms = ?, hand_over_id = NULL,"
        " hand_over_to = NULL, hand_over_generation = 0 WHERE id = ?",
        "it", now_ms, c->vm_id);
    return 0;
}

/* The target has been fenced: it never runs the VM by this migration. The owner goes on under the generation it has. */
static int hand_over_clear(struct state *state, const Drover__HandOverClear *c, uint64_t job_id, struct err *err)
{
    struct state_vm vm;
    if (vm_for_change(state, c->vm_id, job_id, err, &vm) < 0)
        return -1;
    if (strcmp(vm.hand_over_id, c->migration_id) == 0)
        sql_run(state, "UPDATE vms SET hand_over_id = NULL, hand_over_to = NULL, hand_over_generation = 0 WHERE id = ?",
            "t", c->vm_id);
    return 0;
}

static int principal_insert(
    struct state *state, enum principal_kind kind, const char *name, const ProtobufCBinaryData *key, struct err *err)
{
    struct principal holder;
    if (key->len != KEY_BYTES)
        return err_set(err, ERR_INVALID, "%.63s: a public key has %d bytes", name, KEY_BYTES);
    if (state_principal(state, key->data, &holder))
        return err_set(err, ERR_EXISTS,
            "%.63s: this public key belongs to %s already; make another with `drover keygen`", name, holder.name);
    if (sql_run(state, "INSERT INTO principals (public_key, kind, name) VALUES (?, ?, ?)", "bit", key->data, key->len,
            (int64_t)kind, name) < 0)
        return err_set(err, ERR_EXISTS, "%.63s exists already", name);
    return 0;
}

static int host_insert(struct state *state, const Drover__HostInsert *c, int64_t now_ms, struct err *err)
{
    struct state_host host;
    if (state_host(state, c->name, &host))
        return err_set(
            err, ERR_EXISTS, "host %.63s exists already; `drover host remove %.63s` takes it out", c->name, c->name);
    if (principal_insert(state, PRINCIPAL_HOST, c->name, &c->public_key, err) < 0)
        return -1;
    sql_run(state, "INSERT INTO hosts (name, public_key, added_ms) VALUES (?, ?, ?)", "tbi", c->name,
        c->public_key.data, c->public_key.len, now_ms);
    return 0;
}

static int host_delete(struct state *state, const char *name, struct err *err)
{
    if (host_known(state, name, err) < 0)
        return -1;
    int64_t owned = sql_number(state, "SELECT count(*) FROM vms WHERE owner = ?1 OR hand_over_to = ?1", "t", name);
    if (owned)
        return err_set(err, ERR_WRONG_STATE, "host %.63s has %" PRId64 " VM%s; migrate or stop %s first", name, owned,
            owned == 1 ? "" : "s", owned == 1 ? "it" : "them");
    sql_run(state, "DELETE FROM hosts WHERE name = ?", "t", name);
    sql_run(state, "DELETE FROM settings WHERE name = 'host.maintenance.' || ?", "t", name);
    sql_run(state, "DELETE FROM principals WHERE kind = ? AND name = ?", "it", (int64_t)PRINCIPAL_HOST, name);
    return 0;
}

/* What a job holds is its to end: a VM on its way from or to the host may have run on the other one. */
static int vms_settled(const struct state_vm *vms, size_t count, const char *host, struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (vms[i].job_id || vms[i].hand_over_id[0])
            return err_set(err, ERR_BUSY,
                "VM %s, which host %.63s has or may get, is held by job %" PRIu64 " (`drover job show %" PRIu64
                "`); if that waits for this host, a machine has to stand in for it (OPERATIONS.md, A host is dead)",
                vms[i].name, host, vms[i].job_id, vms[i].job_id);
    return 0;
}

/* The generation grows, so that the host, should it be heard once more and be added again, is told to end them. */
static int host_lost(struct state *state, const Drover__HostLost *c, struct err *err)
{
    struct state_vm *owned, *arriving;
    size_t owned_count = state_vms_owned(state, c->name, &owned);
    size_t arriving_count = state_vms_arriving(state, c->name, &arriving);
    int rc = vms_settled(owned, owned_count, c->name, err);
    if (rc == 0)
        rc = vms_settled(arriving, arriving_count, c->name, err);
    free(owned);
    free(arriving);
    if (rc < 0)
        return -1;
    sql_run(
        state, "UPDATE vms SET owner = NULL, generation = generation + 1, desired = 0 WHERE owner = ?", "t", c->name);
    return host_delete(state, c->name, err);
}

static int host_maintenance(struct state *state, const Drover__HostMaintenance *c, struct err *err)
{
    if (host_known(state, c->name, err) < 0)
        return -1;
    if (c->on)
        sql_run(state, "INSERT OR REPLACE INTO settings (name, value) VALUES ('host.maintenance.' || ?, 'on')", "t",
            c->name);
    else
        sql_run(state, "DELETE FROM settings WHERE name = 'host.maintenance.' || ?", "t", c->name);
    return 0;
}

static int host_facts_put(struct state *state, const Drover__HostFactsPut *c, struct err *err)
{
    cleanup_buf struct buf facts = {0};
    if (host_known(state, c->name, err) < 0)
        return -1;
    pb_pack(c->facts, &facts);
    sql_run(state, "UPDATE hosts SET facts = ? WHERE name = ?", "bt", facts.data, facts.len, c->name);
    return 0;
}

static int member_put(struct state *state, const Drover__MemberPut *c, struct err *err)
{
    struct state_member member;
    if (state_member(state, c->name, &member))
        return err_set(err, ERR_EXISTS, "member %.63s exists already; `drover cluster status` shows all", c->name);
    if (principal_insert(state, PRINCIPAL_CONTROLLER, c->name, &c->public_key, err) < 0)
        return -1;
    sql_run(state, "INSERT INTO members (name, public_key, raft_address, api_address) VALUES (?, ?, ?, ?)", "tbtt",
        c->name, c->public_key.data, c->public_key.len, c->raft_address, c->api_address);
    return 0;
}

static int member_delete(struct state *state, const Drover__MemberDelete *c, struct err *err)
{
    if (sql_run(state, "DELETE FROM members WHERE name = ?", "t", c->name) == 0)
        return err_set(err, ERR_NOT_FOUND, "member %.63s does not exist; `drover cluster status` shows all", c->name);
    sql_run(state, "DELETE FROM principals WHERE kind = ? AND name = ?", "it", (int64_t)PRINCIPAL_CONTROLLER, c->name);
    return 0;
}

static int effect_apply(struct state *state, const Drover__Effect *e, uint64_t job_id, int64_t now_ms, struct err *err)
{
    uint64_t child;
    switch (e->change_case) {
    case DROVER__EFFECT__CHANGE_VM_INSERT:
        return vm_insert(state, e->vm_insert, job_id, now_ms, err);
    case DROVER__EFFECT__CHANGE_VM_DELETE:
        return vm_delete(state, e->vm_delete, job_id, err);
    case DROVER__EFFECT__CHANGE_VM_GRANT:
        return vm_grant(state, e->vm_grant, job_id, err);
    case DROVER__EFFECT__CHANGE_VM_PIN:
        return vm_pin(state, e->vm_pin, job_id, err);
    case DROVER__EFFECT__CHANGE_VM_RELEASE:
        return vm_release(state, e->vm_release, job_id, err);
    case DROVER__EFFECT__CHANGE_VM_RENEW:
        return vm_renew(state, e->vm_renew, job_id, err);
    case DROVER__EFFECT__CHANGE_VM_DISK_PUT:
        return vm_disk_put(state, e->vm_disk_put, job_id, err);
    case DROVER__EFFECT__CHANGE_VM_POLICY_PUT:
        return vm_policy_put(state, e->vm_policy_put, job_id, err);
    case DROVER__EFFECT__CHANGE_HAND_OVER_ALLOW:
        return hand_over_allow(state, e->hand_over_allow, job_id, err);
    case DROVER__EFFECT__CHANGE_HAND_OVER_TAKEN:
        return hand_over_taken(state, e->hand_over_taken, job_id, now_ms, err);
    case DROVER__EFFECT__CHANGE_HAND_OVER_CLEAR:
        return hand_over_clear(state, e->hand_over_clear, job_id, err);
    case DROVER__EFFECT__CHANGE_HOST_INSERT:
        return host_insert(state, e->host_insert, now_ms, err);
    case DROVER__EFFECT__CHANGE_HOST_DELETE:
        return host_delete(state, e->host_delete->name, err);
    case DROVER__EFFECT__CHANGE_HOST_LOST:
        return host_lost(state, e->host_lost, err);
    case DROVER__EFFECT__CHANGE_HOST_MAINTENANCE:
        return host_maintenance(state, e->host_maintenance, err);
    case DROVER__EFFECT__CHANGE_HOST_FACTS_PUT:
        return host_facts_put(state, e->host_facts_put, err);
    case DROVER__EFFECT__CHANGE_MEMBER_PUT:
        return member_put(state, e->member_put, err);
    case DROVER__EFFECT__CHANGE_MEMBER_DELETE:
        return member_delete(state, e->member_delete, err);
    case DROVER__EFFECT__CHANGE_SETTING_PUT:
        sql_run(state, "INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", "tt", e->setting_put->name,
            e->setting_put->value);
        return 0;
    case DROVER__EFFECT__CHANGE_JOB_CREATE:
        return job_create(state, e->job_create, job_id, now_ms, err, &child);
    case DROVER__EFFECT__CHANGE_JOB_CANCEL:
        return job_cancel(state, e->job_cancel, err);
    default:
        return err_set(err, ERR_UNSUPPORTED, "a change this version does not know");
    }
}

int effects_apply(
    struct state *state, Drover__Effect **effects, size_t count, uint64_t job_id, int64_t now_ms, struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (effect_apply(state, effects[i], job_id, now_ms, err) < 0)
            return -1;
    return 0;
}
