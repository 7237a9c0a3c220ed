/* A controller's jobs against hosts that are simulated: a real state, the real job_step(), virtual time, and hosts that
 * do what drover-hostd promises. After every action the invariant of the ownership protocol is checked: never two
 * running instances.
 *
 * A disturbance strikes at the n-th action; tests try every n until a run ends undisturbed. */
#ifndef TESTS_CONTROLLER_SIM_H
#define TESTS_CONTROLLER_SIM_H

#include "controller/jobs/job.h"
#include "controller/pb.h"
#include "controller/state/effect.h"

#define SIM_HOSTS      3
#define SIM_PARTITIONS 8
#define SIM_HEARD_US   1300 /* as the destination tells with its outcome */

/* How a migration goes once it has begun. */
enum sim_fate {
    FATE_SUCCESS,
    FATE_ABORT,           /* the source gives up */
    FATE_DOUBT_TAKEN,     /* the source loses the destination's answer; the destination runs it */
    FATE_DOUBT_NOT_TAKEN, /* the hand-over never arrived */
    FATE_DOUBT_FORGOTTEN, /* the destination has lost all knowledge of it */
    FATE_DOUBT_RESET,     /* the destination was reset, and cannot tell whether it ever ran */
    FATE_SOURCE_FORGETS,  /* the source's host has been reset after the destination took it */
    FATE_SLOW,            /* takes so long that only a cancel ends it */
    /* Post-copy: once it has handed over the source asks on until it is told. */
    FATE_POSTCOPY,          /* the destination runs it at once, and has all of it a minute later */
    FATE_DESTINATION_DIES,  /* the destination's engine dies before it has taken the guest */
    FATE_DESTINATION_DOUBT, /* the destination has ended it, and cannot tell whether it ever ran */
    FATE_DESTINATION_RESET, /* the destination's host is reset and has lost all knowledge of it */
    FATE_CUT,               /* the hand-over never arrives, and the source says that nobody answers */
    FATE_CUT_TAKEN,         /* it arrives, but no answer does, until the link is back a minute later */
};

struct sim_partition {
    bool used;
    char vm_id[STATE_ID_MAX];
    uint64_t generation;
    Drover__PartitionState state;
    bool stands; /* OUTGOING, and handed over */
};

struct sim_migration {
    char id[STATE_ID_MAX], vm_id[STATE_ID_MAX];
    bool prepared, started, ended, fenced, told_source, told_destination;
    bool handed_over; /* in post-copy: both sides are at work on their own */
    bool forsaken;    /* the source was told that the destination is gone */
    size_t source, destination;
    uint64_t generation, start_ms, handed_over_ms;
};

/* A disk on its way: what drover-hostd promises, with the files as the last word. */
struct sim_storage {
    bool begun, over; /* the host copies; has ended copying, either way */
    bool committed;   /* the files say that the guest has changed over */
    bool shut;        /* a request to begin that comes now is too late */
    bool forgets;     /* the host loses its memory once it is over */
    bool blind;       /* and does not see the files either */
    bool fails, slow; /* the copying fails; never ends by itself */
    unsigned removed; /* how often the old file was removed */
    uint64_t start_ms;
};

struct sim_host {
    char name[STATE_NAME_MAX];
    bool up;     /* answers, and is known to be up */
    bool starts; /* PARTITION_START succeeds */
    bool shutting_down;
    Drover__HostFacts *facts;
    struct sim_partition partitions[SIM_PARTITIONS];
};

enum sim_blow {
    BLOW_NONE,
    BLOW_LEADER_BEFORE, /* a new leader instead of the n-th action */
    BLOW_LEADER_AFTER,  /* a new leader right after the n-th action took effect, before its answer */
    BLOW_CANCEL,        /* the job is cancelled before the n-th action */
    BLOW_LOST_REQUEST,  /* the n-th action, if a call, never arrives */
    BLOW_LOST_REPLY,    /* it arrives, but its answer does not */
    BLOW_CANCEL_AWAY,   /* as both */
    BLOW_GONE,          /* h2 is away for good from then on */
    BLOW_AWAY,          /* all hosts are silent for away_ms (two minutes) from then on */
};

struct sim {
    struct state *state;
    struct sim_host hosts[SIM_HOSTS];
    struct sim_migration migration;
    struct sim_storage storage;
    enum sim_fate fate;
    bool outcomes;              /* hosts tell outcomes unasked */
    bool new_leader;            /* has not led for long enough to miss a host */
    bool silent;                /* the guest is listened for, and not heard */
    struct err says[SIM_HOSTS]; /* with how the migration ended; ERR_NONE: nothing */
    bool unresumed[SIM_HOSTS];  /* and that it does not see the guest run */
    struct job job;             /* of the last sim_run() or sim_step() */
    uint64_t now_ms, away_ms, away_until_ms, admit_from_ms;
    unsigned actions, members;
    struct err member_says; /* of the next member's joining or leaving; ERR_NONE: it comes or goes */
    enum job_act last_member_act;
    size_t plan_max;   /* moves that one plan to empty a host holds; 0: as many as are asked for */
    const char *until; /* sim_run() is over when the job waits for what has this in its words; NULL: when it ends */
    const char *stuck; /* why a host cannot be emptied; NULL: it can */
    bool full;         /* no host has room */
    bool placed_with_storage; /* what was told last when a place was asked for */
    enum sim_blow blow;
    unsigned blow_at;
    bool struck;
};

/* Hosts h1 to h3, all up, none with a VM. */
void sim_open(struct sim *sim);
void sim_close(struct sim *sim);
/* A command with this one change in it, which it takes. Take: pb_free(). */
Drover__Command *command_of_change(Drover__Effect *effect);
/* Applies a command built from one effect and wants it accepted. */
void sim_change(struct sim *sim, Drover__Effect *effect);
/* Applies a command; NULL: accepted, else why not (in a static buffer). Takes it. */
const char *sim_apply(struct sim *sim, Drover__Command *command, uint64_t *job_id);
/* A new job, accepted. */
uint64_t sim_job(struct sim *sim, Drover__JobCreate *create);
/* What the log says of a job's update; NULL: accepted, else why not (in a static buffer). Takes it. */
const char *sim_propose(struct sim *sim, Drover__JobUpdate *update);
/* A VM that is defined and runs nowhere. */
void sim_stopped_vm(struct sim *sim, const char *vm_id, const char *name);
/* A VM that h1 runs as generation 1. */
void sim_running_vm(struct sim *sim, const char *vm_id, const char *name);
/* What jobs see of the simulation, for tests that step them themselves. */
struct job_env sim_env(struct sim *sim);
/* One event of the job, with which another leader has just begun; what it wants committed must be accepted. Returns
 * what it does. */
enum job_act sim_step(struct sim *sim, uint64_t job_id);
/* Steps the job until it ends; its final state. Fails the test when it takes more than `max` actions. */
Drover__JobState sim_run(struct sim *sim, uint64_t job_id, unsigned max);
/* Lets the fleet's reconciling put everything right, as heartbeats would. */
void sim_settle(struct sim *sim);
/* Whatever happened: the VM has one owner that runs it or nobody, nothing is left anywhere, nothing held. Fails the
 * test `name` if not. */
void sim_check_order(struct sim *sim, const char *vm_id, const char *name);
/* Hosts (bits by index) on which an instance of the VM is running. */
unsigned sim_running_on(const struct sim *sim, const char *vm_id);
/* Partitions of the VM in whatever state, on all hosts. */
unsigned sim_partitions_of(const struct sim *sim, const char *vm_id);
struct state_vm sim_vm(struct sim *sim, const char *vm_id);

#define SIM_DISK   "/disks/web.raw"
#define SIM_TARGET "/fast/web.raw"
/* The path of the VM's first disk, as the log has it. */
void sim_disk(struct sim *sim, const char *vm_id, char out[64]);

/* JobCreate of each kind of VM job. */
Drover__JobCreate *sim_vm_job(Drover__JobKind kind, const char *vm_id, const char *host, bool start);

#endif
