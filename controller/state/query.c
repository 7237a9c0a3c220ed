/* Reads of VMs, hosts, members, settings and principals. */
#include <stdlib.h>
#include <string.h>

#include "controller/pb.h"
#include "controller/state/sql.h"

/* Room for one more in a list that grows by doubling. */
#define LIST_GROW(list, count)                                                                                         \
    do {                                                                                                               \
        if (((count) & ((count)-1)) == 0)                                                                              \
            (list) = mem_realloc((list), ((count) ? (count)*2 : 1) * sizeof *(list));                                  \
    } while (0)

#define VM_COLUMNS                                                                                                     \
    "id, name, owner, preferred_host, desired, generation, hand_over_id, hand_over_to, hand_over_generation, job_id,"  \
    " created_ms, moved_ms, vcpus, memory_bytes"

static void vm_read(sqlite3_stmt *row, struct state_vm *vm)
{
    sql_text(row, 0, vm->id, sizeof vm->id);
    sql_text(row, 1, vm->name, sizeof vm->name);
    sql_text(row, 2, vm->owner, sizeof vm->owner);
    sql_text(row, 3, vm->preferred_host, sizeof vm->preferred_host);
    vm->desired_running = sqlite3_column_int(row, 4) != 0;
    vm->generation = sql_u64(row, 5);
    sql_text(row, 6, vm->hand_over_id, sizeof vm->hand_over_id);
    sql_text(row, 7, vm->hand_over_to, sizeof vm->hand_over_to);
    vm->hand_over_generation = sql_u64(row, 8);
    vm->job_id = sql_u64(row, 9);
    vm->created_ms = sqlite3_column_int64(row, 10);
    vm->moved_ms = sqlite3_column_int64(row, 11);
    vm->vcpus = (uint32_t)sqlite3_column_int64(row, 12);
    vm->memory_bytes = sql_u64(row, 13);
}

static bool vm_one(sqlite3_stmt *query, struct state_vm *out)
{
    if (!sql_row(query))
        return false;
    vm_read(query, out);
    sql_end(query);
    return true;
}

static size_t vm_list(sqlite3_stmt *query, struct state_vm **out)
{
    struct state_vm *list = NULL;
    size_t count = 0;
    while (sql_row(query)) {
        LIST_GROW(list, count);
        vm_read(query, &list[count++]);
    }
    *out = list;
    return count;
}

bool state_vm(struct state *state, const char *id, struct state_vm *out)
{
    return vm_one(sql_query(state, "SELECT " VM_COLUMNS " FROM vms WHERE id = ?", "t", id), out);
}

bool state_vm_named(struct state *state, const char *name, struct state_vm *out)
{
    return vm_one(sql_query(state, "SELECT " VM_COLUMNS " FROM vms WHERE name = ?", "t", name), out);
}

size_t state_vms(struct state *state, const char *after, size_t limit, struct state_vm **out)
{
    return vm_list(sql_query(state, "SELECT " VM_COLUMNS " FROM vms WHERE name > ? ORDER BY name LIMIT ?", "ti", after,
                       (int64_t)limit),
        out);
}

size_t state_vms_owned(struct state *state, const char *host, struct state_vm **out)
{
    return vm_list(sql_query(state, "SELECT " VM_COLUMNS " FROM vms WHERE owner = ? ORDER BY name", "t", host), out);
}

size_t state_vms_arriving(struct state *state, const char *host, struct state_vm **out)
{
    return vm_list(
        sql_query(state, "SELECT " VM_COLUMNS " FROM vms WHERE hand_over_to = ? ORDER BY name", "t", host), out);
}

Drover__VmSpec *state_vm_spec(struct state *state, const char *id)
{
    Drover__VmSpec *spec = NULL;
    sqlite3_stmt *row = sql_query(state, "SELECT spec FROM vms WHERE id = ?", "t", id);
    if (sql_row(row)) {
        spec = sql_message(row, 0, &drover__vm_spec__descriptor);
        sql_end(row);
    }
    return spec;
}

bool state_mac_taken(struct state *state, const char *mac)
{
    return sql_number(state, "SELECT count(*) FROM nics WHERE mac = lower(?)", "t", mac) != 0;
}

uint64_t state_memory_promised(struct state *state, const char *host)
{
    return (uint64_t)sql_number(
        state, "SELECT coalesce(sum(memory_bytes), 0) FROM vms WHERE owner = ?1 OR hand_over_to = ?1", "t", host);
}

#define HOST_COLUMNS                                                                                                   \
    "name, public_key, added_ms, facts IS NOT NULL, (SELECT count(*) FROM vms WHERE owner = hosts.name),"              \
    " EXISTS (SELECT 1 FROM settings WHERE settings.name = 'host.maintenance.' || hosts.name)"

static void key_read(sqlite3_stmt *row, int column, uint8_t out[KEY_BYTES])
{
    memset(out, 0, KEY_BYTES);
    if (sqlite3_column_bytes(row, column) == KEY_BYTES)
        memcpy(out, sqlite3_column_blob(row, column), KEY_BYTES);
}

static void host_read(sqlite3_stmt *row, struct state_host *host)
{
    sql_text(row, 0, host->name, sizeof host->name);
    key_read(row, 1, host->public_key);
    host->added_ms = sqlite3_column_int64(row, 2);
    host->seen = sqlite3_column_int(row, 3) != 0;
    host->vms = (uint32_t)sqlite3_column_int64(row, 4);
    host->maintenance = sqlite3_column_int(row, 5) != 0;
}

bool state_host(struct state *state, const char *name, struct state_host *out)
{
    sqlite3_stmt *row = sql_query(state, "SELECT " HOST_COLUMNS " FROM hosts WHERE name = ?", "t", name);
    if (!sql_row(row))
        return false;
    host_read(row, out);
    sql_end(row);
    return true;
}

size_t state_hosts(struct state *state, const char *after, size_t limit, struct state_host **out)
{
    sqlite3_stmt *row = sql_query(
        state, "SELECT " HOST_COLUMNS " FROM hosts WHERE name > ? ORDER BY name LIMIT ?", "ti", after, (int64_t)limit);
    struct state_host *list = NULL;
    size_t count = 0;
    while (sql_row(row)) {
        LIST_GROW(list, count);
        host_read(row, &list[count++]);
    }
    *out = list;
    return count;
}

Drover__HostFacts *state_host_facts(struct state *state, const char *name)
{
    Drover__HostFacts *facts = NULL;
    sqlite3_stmt *row = sql_query(state, "SELECT facts FROM hosts WHERE name = ? AND facts IS NOT NULL", "t", name);
    if (sql_row(row)) {
        facts = sql_message(row, 0, &drover__host_facts__descriptor);
        sql_end(row);
    }
    return facts;
}

static void member_read(sqlite3_stmt *row, struct state_member *member)
{
    sql_text(row, 0, member->name, sizeof member->name);
    key_read(row, 1, member->public_key);
    sql_text(row, 2, member->raft_address, sizeof member->raft_address);
    sql_text(row, 3, member->api_address, sizeof member->api_address);
}

bool state_has_members(struct state *state)
{
    return sql_number(state, "SELECT EXISTS (SELECT 1 FROM members)", "") != 0;
}

bool state_member(struct state *state, const char *name, struct state_member *out)
{
    sqlite3_stmt *row =
        sql_query(state, "SELECT name, public_key, raft_address, api_address FROM members WHERE name = ?", "t", name);
    if (!sql_row(row))
        return false;
    member_read(row, out);
    sql_end(row);
    return true;
}

bool state_setting(struct state *state, const char *name, char *out, size_t size)
{
    sqlite3_stmt *row = sql_query(state, "SELECT value FROM settings WHERE name = ?", "t", name);
    if (!sql_row(row))
        return false;
    sql_text(row, 0, out, size);
    sql_end(row);
    return true;
}

bool state_principal(struct state *state, const uint8_t public_key[KEY_BYTES], struct principal *out)
{
    sqlite3_stmt *row = sql_query(state, "SELECT kind, name FROM principals WHERE public_key = ?", "b",
        (const void *)public_key, (size_t)KEY_BYTES);
    if (!sql_row(row))
        return false;
    out->kind = (enum principal_kind)sqlite3_column_int(row, 0);
    sql_text(row, 1, out->name, sizeof out->name);
    sql_end(row);
    return true;
}

void state_counts(struct state *state, struct state_counts *out)
{
    *out = (struct state_counts){0};
    out->hosts = (uint32_t)sql_number(state, "SELECT count(*) FROM hosts", "");
    out->vms = (uint32_t)sql_number(state, "SELECT count(*) FROM vms", "");
    out->vms_owned = (uint32_t)sql_number(state, "SELECT count(*) FROM vms WHERE owner IS NOT NULL", "");
    out->members = (uint32_t)sql_number(state, "SELECT count(*) FROM members", "");
    out->jobs_active = (uint32_t)sql_number(state, "SELECT count(*) FROM jobs WHERE finished_ms IS NULL", "");
    sqlite3_stmt *row = sql_query(state, "SELECT state, count(*) FROM jobs GROUP BY state", "");
    while (sql_row(row)) {
        int64_t job_state = sqlite3_column_int64(row, 0);
        if (job_state >= 0 && job_state < 6)
            out->jobs[job_state] = (uint32_t)sqlite3_column_int64(row, 1);
    }
}
