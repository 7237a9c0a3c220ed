/* Jobs, decided: every change of the cluster as a row of named steps, driven by one pure function.
 *
 *   event -> job_step(job, env, event) -> one action     the runner (runner.h) does it and brings the next event
 *
 * What must survive a leader is in the log (struct state_job: state, step, data); what the function remembers besides
 * may be lost at any time. Each commit ends a step and begins the next in one command, so a step's intent is in the log
 * before it acts. JOB_ENTER tells that the durable part is new: the present step begins, or begins again under a new
 * leader, or has been cancelled. Whatever a step asks of a host is idempotent and keyed by (job, step).
 *
 *   RUNNING --step failed, or cancelled--> CANCELLING (undoing) --undone--> FAILED or CANCELLED
 *      '--last step done--> SUCCEEDED          '--too late to undo--> RUNNING
 *
 * No I/O and no clock: the time comes with the event. Reads the applied state (in memory) and the fleet through `env`.
 */
#ifndef CONTROLLER_JOBS_JOB_H
#define CONTROLLER_JOBS_JOB_H

#include "controller/state/state.h"
#include "proto/host.pb-c.h"

#define JOB_REASON_MAX 256 /* bytes of why placement chose a host, in words */

/* What a job may know of a host. */
struct job_host {
    bool up;
    bool missed;                    /* it is not heard, and this leader has led for long enough to have heard it */
    const Drover__HostFacts *facts; /* lent until the next event; NULL: never told */
    bool shutting_down;
};

struct job_partition {
    Drover__PartitionState state;
    uint64_t generation;
    uint64_t uptime_ms;
};

/* A move that would help to empty a host. */
struct job_move {
    char vm_id[STATE_ID_MAX], vm[STATE_NAME_MAX], to_host[STATE_NAME_MAX], reason[256];
};
struct job_plan {
    const char **given_up; /* names of VMs that stay, so that no place and no move is spent on them; the caller's */
    size_t given_up_count;
    struct job_move *moves; /* the caller's, in the order in which they should begin */
    size_t count;
    char stuck[256];  /* why a VM cannot be moved; empty: all that may move have a place */
    double takes_s;   /* expected, of everything that is still to leave */
    unsigned at_once; /* moves that may leave the host at once */
};

struct job_env {
    struct state *state;
    void *user;
    /* False: no such host. */
    bool (*host)(void *user, const char *name, struct job_host *out);
    /* The host's last report of a VM's partition; false: none. */
    bool (*partition)(void *user, const char *host, const char *vm_id, struct job_partition *out);
    /* Where the VM should go, not to `exclude` (may be empty), and why; `options` are those of the move, NULL where it
     * has none. ERR_UNAVAILABLE: no host is up. */
    int (*place)(void *user, const char *vm_id, const char *exclude, const Drover__MigrationOptions *options,
        struct err *err, char host[STATE_NAME_MAX], char reason[JOB_REASON_MAX]);
    /* The migration may begin now; else `reason` says what it waits for. */
    bool (*admit)(void *user, uint64_t job_id, char reason[256]);
    /* Up to `max` moves that empty the host. */
    void (*evacuate)(void *user, const char *host, size_t max, struct job_plan *out);
};

/* The evacuation of the host that has not ended, the oldest; 0: none. */
uint64_t job_evacuation(struct state *state, const char *host);

/* What one side of a migration has said of it. */
struct job_side {
    bool heard;
    Drover__MigrationOutcome outcome;
    struct err error;
    bool unresumed; /* its guest is there and is not seen to run, which `error` tells of */
};

/* A migration's own; of a disk's move on one host, what `source` and `started` say. */
struct migrating {
    bool admitted;                /* let in by this leader; the log knows it once the next step is in it */
    bool started;                 /* the source engine has taken the order */
    bool unanswered;              /* the destination must decide, it does not answer the source's engine */
    bool destination_engine_gone; /* for good, so that nobody will answer the source's any more */
    struct job_side source, destination;
    bool listens;             /* the destination may still hear the guest */
    uint64_t heard_us;        /* from the start on the destination to the first frame; 0: not heard */
    Drover__DiskMoves *disks; /* owned; of the preflight: disks to be taken along */
    /* In preflight: where it goes and why, and what both hosts saw when they looked. Owned. */
    char target[STATE_NAME_MAX], target_reason[JOB_REASON_MAX];
    Drover__MigrateCheckReply *check_source, *check_destination;
};

/* An evacuation's own: what the last plan was made for, and what came of it. */
struct evacuating {
    uint64_t planned_ms; /* when it was made; 0: never */
    size_t children, active, moved, left, held;
    double takes_s;
};

struct job {
    struct state_job log; /* as of the last commit that was seen; owned */
    /* The rest is this leader's own and starts at zero. */
    int phase;                       /* within the step; 0 when it is entered */
    uint64_t since_ms;               /* when the step was entered */
    uint32_t attempts;               /* in vain, since the last success */
    bool committing;                 /* an update is on its way into the log; kept by the runner */
    bool queued;                     /* it waits for other jobs to end: the runner wakes it */
    Drover__MigrationRecord *record; /* owned; merged of what both sides told */
    struct migrating migrating;
    struct evacuating evacuating;
    char waiting[512]; /* what it waits for, for people; empty: nothing */
};

enum job_event_type {
    JOB_ENTER,   /* the durable part is new */
    JOB_REFUSED, /* the last commit's premise did not hold, or the log does not take it: err */
    JOB_REPLY,   /* to the last call: err, or body */
    JOB_TIMER,   /* the last wait is over */
    JOB_OUTCOME, /* a host told how a migration ended, unasked */
};

struct job_event {
    enum job_event_type type;
    uint64_t now_ms;
    const struct err *err; /* NULL: none */
    const uint8_t *body;
    size_t len;
    const char *host;                             /* OUTCOME: who says so */
    const Drover__MigrateOutcomeRequest *outcome; /* OUTCOME */
};

enum job_act {
    ACT_KEEP,            /* nothing new: go on waiting for what is under way */
    ACT_WAIT,            /* for timer_ms */
    ACT_COMMIT,          /* update */
    ACT_CALL,            /* host, method, request, deadline_ms */
    ACT_MEMBER_ADD,      /* member */
    ACT_MEMBER_REMOVE,   /* member's name */
    ACT_MEMBER_WITHDRAW, /* member, if it is just this one */
};

struct job_action {
    enum job_act act;
    uint32_t timer_ms;
    Drover__JobUpdate *update;
    char host[STATE_NAME_MAX];
    uint32_t method;
    void *request;
    uint32_t deadline_ms;
    const Drover__MemberPut *member; /* lent: of the job's data */
};

/* Cuts what a host wrote into a record to sizes that fit the log. */
void job_record_bound(Drover__MigrationRecord *record);

/* Decides. What the action holds is the caller's: job_action_clear(). */
void job_step(struct job *job, const struct job_env *env, const struct job_event *event, struct job_action *out);
void job_action_clear(struct job_action *action);
/* Frees what the job owns. */
void job_clear(struct job *job);
/* "vm migrate". Lent. */
const char *job_kind_name(Drover__JobKind kind);

/* The names of a kind's steps, for JobCreate; `start` is for a VM that is started right after it was made. */
void job_add_steps(Drover__JobCreate *create, bool start);

/* A migration that a plan orders: somebody may have asked for the plan, nobody has asked for this VM by name. Lent. */
struct job_migration_order {
    const char *vm_id, *vm, *from_host, *to_host;
    const char *migration_id; /* never used before, also not by a job that is not kept any more */
    const char *actor, *reason;
};
/* Take. */
Drover__JobCreate *job_migration_new(const struct job_migration_order *order);
/* Fills the command with what cancels the job. True: that is to cancel the moves of a plan which has failed, and waits
 * for them; the plan itself stays as failed as it is. */
bool job_cancel_command(struct state *state, uint64_t job_id, const char *actor, Drover__Command *command);
/* The same for a move of a disk, with the word of somebody which of its two files is the disk, which its host goes by
 * where nothing else tells. */
MUST_CHECK int job_settle_command(struct state *state, uint64_t job_id, const char *actor, const char *disk,
    struct err *err, Drover__Command *command);

#endif
