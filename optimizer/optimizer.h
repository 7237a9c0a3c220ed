/* optimizer: where VMs should run. A pure library: a snapshot of the cluster and the time go in, an ordered plan with
 * reasons comes out. No I/O, no clock, no globals; the same input gives the same plan, to the letter.
 *
 * Hot is what is hot for long: a host whose utilization of CPU, memory or IOPS has been above `high` for `hold_ms` is
 * relieved until it is below `low` (hysteresis), by the moves with the best gain for their cost that no capacity
 * forbids. A VM that moved lately rests. The second run on an unchanged cluster plans nothing.
 *
 * Units: CPU in cores, memory in bytes, IOPS in operations per second; utilization is a share of capacity. */
#ifndef OPTIMIZER_OPTIMIZER_H
#define OPTIMIZER_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIMIZER_NAME_MAX  64
#define OPTIMIZER_TEXT_MAX  256
#define OPTIMIZER_MOVES_MAX 64

enum resource { RESOURCE_CPU, RESOURCE_MEMORY, RESOURCE_IOPS, RESOURCE_COUNT };

struct optimizer_host {
    char name[OPTIMIZER_NAME_MAX];
    bool accepts;                    /* up, and may take VMs */
    double capacity[RESOURCE_COUNT]; /* 0: unlimited or unknown */
    double overhead[RESOURCE_COUNT]; /* what the host uses besides its VMs */
    double link_bytes_per_s;         /* at which it sends and receives; 0: it does not say */
};

/* What a move alone between two hosts sends. */
struct optimizer_link {
    size_t from, to;
    double bytes_per_s;
};

struct optimizer_vm {
    char name[OPTIMIZER_NAME_MAX];
    size_t host;                   /* index of its host; SIZE_MAX: to be placed */
    bool movable;                  /* running, no job on it, no device that forbids it */
    double demand[RESOURCE_COUNT]; /* memory: what it may use at most */
    double move_cost_s;            /* seconds a migration is expected to take, besides sending: */
    double move_bytes;             /* from its host to another */
    uint64_t moved_ms;             /* when it last moved; 0: never */
    const bool *possible;          /* by host: it can run there; NULL: everywhere */
};

struct optimizer_input {
    const struct optimizer_host *hosts;
    size_t host_count;
    const struct optimizer_vm *vms;
    size_t vm_count;
    uint64_t now_ms;                    /* any clock that does not jump */
    const struct optimizer_link *links; /* a few, that are known better; the first of two that are the same counts */
    size_t link_count;
    double link_bytes_per_s; /* of those of which neither end says it; 0: sending takes no time */
};

struct optimizer_settings {
    double high[RESOURCE_COUNT], low[RESOURCE_COUNT]; /* utilization */
    uint64_t hold_ms;                                 /* how long it must have been hot */
    uint64_t rest_ms;                                 /* a VM that moved stays for so long */
    double min_gain;                                  /* of the imbalance score, for a move to be worth it */
    size_t max_moves;                                 /* in one plan */
};
void optimizer_defaults(struct optimizer_settings *out);

/* What the optimizer remembers from run to run: since when each host has been hot. Fed with every sample. */
struct optimizer_memory;
struct optimizer_memory *optimizer_memory_new(void);
void optimizer_memory_free(struct optimizer_memory *memory);
/* Takes notice of a sample. O(hosts + VMs). */
void optimizer_observe(
    struct optimizer_memory *memory, const struct optimizer_settings *settings, const struct optimizer_input *input);

enum optimizer_verdict { VERDICT_BALANCED, VERDICT_WATCHING, VERDICT_HOT };
/* How a host stands, with since when it has been hot. */
enum optimizer_verdict optimizer_verdict(const struct optimizer_memory *memory,
    const struct optimizer_settings *settings, const struct optimizer_input *input, size_t host, uint64_t *hot_for_ms);

struct optimizer_move {
    size_t vm, from, to;
    double gain, cost_s;
    char reason[OPTIMIZER_TEXT_MAX];    /* one sentence with the figures that decided */
    char runner_up[OPTIMIZER_TEXT_MAX]; /* why not the next best */
};

struct optimizer_plan {
    struct optimizer_move moves[OPTIMIZER_MOVES_MAX];
    size_t move_count;
    double imbalance_before, imbalance_after;
    char verdict[OPTIMIZER_TEXT_MAX]; /* why there are no, or no more, moves */
};

/* Plans moves that relieve hot hosts. With `at_once`, what is above `high` counts as hot without the hold time (a
 * user's `optimizer plan`). O(moves x (VMs of hot hosts) x hosts). */
void optimizer_plan(const struct optimizer_memory *memory, const struct optimizer_settings *settings,
    const struct optimizer_input *input, bool at_once, struct optimizer_plan *out);

/* The host for VM `vm` of the input (initial placement, or a migration without a target: `exclude` is then its present
 * host, else SIZE_MAX). SIZE_MAX when none has room; `reason` says why, or why this one. */
size_t optimizer_place(const struct optimizer_settings *settings, const struct optimizer_input *input, size_t vm,
    size_t exclude, char reason[OPTIMIZER_TEXT_MAX]);

/* Everything movable off `host`, within the memory of the others, whatever their load: it must be empty. The moves are
 * in the order in which they should begin; those that do not fit are left out, and the verdict says why the first did
 * not. One plan holds OPTIMIZER_MOVES_MAX, the VMs with most memory: once these are on their way (not movable), the
 * next holds others. */
void optimizer_evacuate(const struct optimizer_settings *settings, const struct optimizer_input *input, size_t host,
    struct optimizer_plan *out);

/* How fast a move alone sends between these hosts: as measured, else what the slower end says. 0: nobody knows. */
double optimizer_link_bytes_per_s(const struct optimizer_input *input, size_t from, size_t to);

/* How many migrations may be at work at once. */
struct optimizer_limits {
    unsigned outgoing, incoming; /* of one host */
    unsigned link;               /* from one host to another */
};
struct optimizer_transfer {
    size_t from, to;
    double bytes;
    double fixed_s;     /* what it takes besides */
    double bytes_per_s; /* alone between these hosts; greater than 0 */
};
/* Seconds until all transfers are done that begin in this order as the limits let them, where those that a host sends
 * or receives together share evenly. O(transfers^2): about a millisecond for a thousand. */
double optimizer_schedule(
    const struct optimizer_transfer *list, size_t count, size_t host_count, const struct optimizer_limits *limits);

/* Imbalance: standard deviation over hosts of the utilization, summed over the resources (0: perfectly even). */
double optimizer_imbalance(const struct optimizer_input *input);

#endif
