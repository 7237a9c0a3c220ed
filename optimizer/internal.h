/* What the files of the optimizer share. Private: nobody else includes it.
 *
 * A `view` is the input made safe: numbers are checked and bounded once (what comes in was reported by hosts), the load
 * of every host is added up, and moves can be tried on it. Everything after it may trust its numbers. */
#ifndef OPTIMIZER_INTERNAL_H
#define OPTIMIZER_INTERNAL_H

#include "optimizer/optimizer.h"

struct view_host {
    bool accepts;
    double capacity[RESOURCE_COUNT]; /* 0: unlimited */
    double used[RESOURCE_COUNT];
};

struct view_vm {
    size_t host; /* SIZE_MAX: nowhere */
    bool sane;   /* its numbers make sense; else it is left alone */
    bool moved;  /* by this plan */
    double demand[RESOURCE_COUNT];
    double cost_s; /* of a move, besides sending */
    double bytes;  /* to be sent */
};

struct view {
    const struct optimizer_input *input; /* lent */
    struct view_host *hosts;
    struct view_vm *vms;
    /* Per resource over the hosts that have a capacity of it: how the imbalance is kept up to date in O(1) a move. */
    size_t count[RESOURCE_COUNT];
    double sum[RESOURCE_COUNT], squares[RESOURCE_COUNT];
};

/* Copies and checks. Take: view_free(). */
void view_init(struct view *view, const struct optimizer_input *input);
void view_free(struct view *view);
/* Share of capacity that a host uses, with `extra` (may be negative) on top; 0 for what is unlimited. */
double view_utilization(const struct view *view, size_t host, enum resource resource, double extra);
/* How much the imbalance falls when `vm` moves to `to`; negative when it grows. */
double view_gain(const struct view *view, size_t vm, size_t to);
/* Seconds that a move there is expected to take. */
double view_cost_s(const struct view *view, size_t vm, size_t to);
void view_move(struct view *view, size_t vm, size_t to);
double view_imbalance(const struct view *view);

/* Settings with absurd values replaced by sound ones. */
struct optimizer_settings settings_clean(const struct optimizer_settings *settings);

/* Since when the resource of a host is hot, latched or only watched; by the host's name. */
enum heat { HEAT_COOL, HEAT_WATCHED, HEAT_HOT };
enum heat memory_heat(const struct optimizer_memory *memory, const struct optimizer_settings *settings,
    const char *host, enum resource resource, uint64_t now_ms, uint64_t *for_ms);

/* One move that could be made now. */
struct candidate {
    size_t vm, from, to;
    enum resource resource; /* the one that is relieved first and foremost */
    double relief;          /* share of what is too much that it takes away, 0 to 1 */
    double gain, cost_s;
    double worth; /* what candidates are compared by */
};

/* What has to be relieved, [host][resource]: HEAT_HOT is hot for long and takes nothing until it is below `low`,
 * HEAT_WATCHED is above `high` now and relieved because a user asked. */
typedef enum heat host_heat[RESOURCE_COUNT];

/* The best move and the next best; returns how many of the two there are. */
size_t candidate_search(
    const struct view *view, const struct optimizer_settings *settings, const host_heat *hot, struct candidate best[2]);
/* Room: `vm` on `host` keeps every resource within the lower of `high` and the capacity. */
bool candidate_fits(const struct view *view, const struct optimizer_settings *settings, size_t vm, size_t host);
bool candidate_rests(const struct view *view, const struct optimizer_settings *settings, size_t vm);

/* The host for a VM on the view as it stands, other than `exclude`; SIZE_MAX: none. `reason` says why. */
size_t place_choose(
    const struct view *view, const struct optimizer_settings *settings, size_t vm, size_t exclude, char *reason);
/* The VM can run there at all. */
bool place_possible(const struct view *view, size_t vm, size_t host);

/* Sentences. Each writes at most OPTIMIZER_TEXT_MAX bytes. */
void explain_move(const struct view *view, const struct candidate *move, bool further, uint64_t hot_for_ms, char *out);
void explain_runner_up(const struct view *view, const struct optimizer_settings *settings, const struct candidate *move,
    const struct candidate *other, char *out);
void explain_rest(const struct view *view, const struct optimizer_settings *settings, const host_heat *hot,
    const struct optimizer_memory *memory, size_t moves, size_t max_moves, char *out);
void explain_text(char *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *resource_name(enum resource resource);
#define AMOUNT_MAX 48
const char *resource_amount(enum resource resource, double amount, char out[static AMOUNT_MAX]);

#endif
