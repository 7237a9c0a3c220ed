/* The replicated state: a SQLite database in memory that only commands of the log change. This folder is the only place
 * with SQL.
 *
 *   log entry -> state_apply() -> one transaction -> CommandResult        the same on every member, always
 *
 * Deterministic: no clock, no random numbers, no unordered updates. A premise that does not hold is a result (an
 * ErrorInfo that names thing, cause and next step), never a failure; then nothing was changed. What can only be a bug
 * or a full memory ends the process. One thread. Queries read what has been applied so far; lists are arrays the caller
 * frees. */
#ifndef CONTROLLER_STATE_STATE_H
#define CONTROLLER_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "proto/state.pb-c.h"
#include "proto/wire.h"

#define STATE_SCHEMA    5    /* the latest that this program knows; what needs which: version.h */
#define STATE_NAME_MAX  64   /* names of hosts, VMs, members and users, with the NUL */
#define STATE_ID_MAX    64   /* UUIDs, with the NUL */
#define STATE_PATH_MAX  1024 /* bytes of a path in a definition */
#define STATE_JOBS_KEPT 5000

struct state;

struct state *state_new(void);
void state_free(struct state *state);

/* Applies one log entry (a packed Command) and appends the packed CommandResult. Ends the process at one that needs a
 * later schema than this program's. */
void state_apply(struct state *state, const uint8_t *entry, size_t len, struct buf *result);
/* Readable by every program that knows what the state holds (version.h), however old. */
void state_snapshot(struct state *state, struct buf *out);
/* Replaces everything by a snapshot; on failure the old state stays. */
MUST_CHECK int state_restore(struct state *state, const uint8_t *data, size_t len, struct err *err);
/* Of the contents of all tables: equal on members that have applied the same entries. For tests and tools. */
uint64_t state_hash(struct state *state);

struct state_vm {
    char id[STATE_ID_MAX], name[STATE_NAME_MAX];
    char owner[STATE_NAME_MAX]; /* empty: nobody */
    char preferred_host[STATE_NAME_MAX];
    bool desired_running;
    uint64_t generation;
    char hand_over_id[STATE_ID_MAX]; /* empty: no hand-over is allowed */
    char hand_over_to[STATE_NAME_MAX];
    uint64_t hand_over_generation;
    uint64_t job_id; /* that holds it; 0: none */
    int64_t created_ms, moved_ms;
    uint32_t vcpus;
    uint64_t memory_bytes;
};
bool state_vm(struct state *state, const char *id, struct state_vm *out);
bool state_vm_named(struct state *state, const char *name, struct state_vm *out);
/* Up to `limit` VMs with names after `after`, by name. Take: free(). */
size_t state_vms(struct state *state, const char *after, size_t limit, struct state_vm **out);
size_t state_vms_owned(struct state *state, const char *host, struct state_vm **out);
/* Those that may be handed over to the host just now. */
size_t state_vms_arriving(struct state *state, const char *host, struct state_vm **out);
/* Take: pb_free(). NULL when there is no such VM. */
Drover__VmSpec *state_vm_spec(struct state *state, const char *id);
/* A NIC of some VM has this MAC address. */
bool state_mac_taken(struct state *state, const char *mac);
/* Memory of the VMs the host owns or may be handed. */
uint64_t state_memory_promised(struct state *state, const char *host);

struct state_host {
    char name[STATE_NAME_MAX];
    uint8_t public_key[KEY_BYTES];
    int64_t added_ms;
    bool seen;        /* it has said hello once */
    bool maintenance; /* gets no VMs */
    uint32_t vms;
};
bool state_host(struct state *state, const char *name, struct state_host *out);
size_t state_hosts(struct state *state, const char *after, size_t limit, struct state_host **out);
/* As last told; NULL when never. Take: pb_free(). */
Drover__HostFacts *state_host_facts(struct state *state, const char *name);

struct state_job {
    Drover__Job *job;
    Drover__JobData *data;
    uint32_t step;
    uint64_t revision;
};
/* Take: state_job_clear(). False: no such job. */
bool state_job(struct state *state, uint64_t id, struct state_job *out);
void state_job_clear(struct state_job *job);

/* The job that the request with this id made, as long as both are remembered. */
bool state_request(struct state *state, const char *request_id, uint64_t *job_id);

struct state_job_ref {
    uint64_t id, revision;
    Drover__JobKind kind;
    Drover__JobState state;
};
/* All that have not ended, oldest first. */
size_t state_jobs_active(struct state *state, struct state_job_ref **out);
/* The newest first, below `before_id` (0: all). */
size_t state_jobs(struct state *state, uint64_t before_id, bool active_only, size_t limit, struct state_job_ref **out);
/* The child of a job that makes this migration. */
bool state_job_child(struct state *state, uint64_t parent_id, const char *migration_id, struct state_job_ref *out);
struct state_child {
    uint64_t id;
    Drover__JobState state;
    char target[STATE_NAME_MAX];
};
/* All children of a job that are still kept, oldest first. */
size_t state_jobs_children(struct state *state, uint64_t parent_id, struct state_child **out);
/* The unfinished job of a migration; 0: none. */
uint64_t state_job_of_migration(struct state *state, const char *migration_id);

struct state_member {
    char name[STATE_NAME_MAX];
    uint8_t public_key[KEY_BYTES];
    char raft_address[WIRE_ADDRESS_MAX], api_address[WIRE_ADDRESS_MAX];
};
/* The log knows who the members are: it does from the first leader on. */
bool state_has_members(struct state *state);
bool state_member(struct state *state, const char *name, struct state_member *out);

/* Copies the setting's value; false when it was never set. */
bool state_setting(struct state *state, const char *name, char *out, size_t size);

/* Who holds a public key. */
bool state_principal(struct state *state, const uint8_t public_key[KEY_BYTES], struct principal *out);

struct state_counts {
    uint32_t hosts, vms, vms_owned, jobs_active, members;
    uint32_t jobs[6]; /* by JobState, of those still kept */
};
void state_counts(struct state *state, struct state_counts *out);

#endif
