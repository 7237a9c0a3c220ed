#include "controller/placement/placement.h"

#include <stdlib.h>
#include <string.h>

#include "controller/pb.h"
#include "controller/placement/possible.h"
#include "controller/placement/view.h"

#define ATTEMPTS_MAX   64
#define LAST_MOVES_MAX 8
#define CHOICES_MAX    64
#define CHOICE_MS      2000u /* by then it is in the log, or its job has failed */

struct attempt {
    char vm_id[STATE_ID_MAX];
    uint64_t at_ms;
};

/* Jobs that are begun together are placed one after the other, before the first of them is in the log. */
struct choice {
    char vm_id[STATE_ID_MAX], host[STATE_NAME_MAX];
    uint64_t at_ms; /* 0: none */
};

struct placement {
    struct state *state;
    struct fleet *fleet;
    struct placement_options options;
    struct optimizer_memory *memory;
    struct optimizer_plan *plan;           /* of the last run; large, so kept */
    struct attempt attempts[ATTEMPTS_MAX]; /* a ring: what was tried lately rests, also when it failed */
    size_t next_attempt;
    struct choice choices[CHOICES_MAX]; /* likewise a ring */
    size_t next_choice;
    struct speeds *speeds;                             /* NULL: to be read again */
    uint64_t moved_ms;                                 /* when anything last began or ended moving */
    Drover__OptimizerMove *last_moves[LAST_MOVES_MAX]; /* the newest first */
    /* for view_moved() */
    uint64_t now_ms;
    int64_t wall_ms;
};

struct placement *placement_new(struct state *state, struct fleet *fleet, const struct placement_options *options)
{
    struct placement *p = mem_zalloc(sizeof *p);
    p->state = state;
    p->fleet = fleet;
    p->options = *options;
    p->memory = optimizer_memory_new();
    p->plan = mem_zalloc(sizeof *p->plan);
    return p;
}

void placement_free(struct placement *p)
{
    if (!p)
        return;
    placement_reset(p);
    optimizer_memory_free(p->memory);
    free(p->plan);
    free(p);
}

static void speeds_forget(struct placement *p)
{
    speeds_free(p->speeds);
    p->speeds = NULL;
}

void placement_reset(struct placement *p)
{
    optimizer_memory_free(p->memory);
    p->memory = optimizer_memory_new();
    memset(p->attempts, 0, sizeof p->attempts);
    memset(p->choices, 0, sizeof p->choices);
    speeds_forget(p);
    p->moved_ms = 0;
    for (size_t i = 0; i < LAST_MOVES_MAX; i++) {
        pb_free(p->last_moves[i]);
        p->last_moves[i] = NULL;
    }
}

/* The log knows the wall time of the last move, which makes a VM rest. By a clock that was ahead then, and is right
 * now, it has not moved yet: it does not rest, or it would do so for as long as the clock was wrong. */
static uint64_t view_moved(void *user, const struct state_vm *vm)
{
    const struct placement *p = user;
    uint64_t moved = 0;
    if (vm->moved_ms) {
        int64_t ago = p->wall_ms - vm->moved_ms;
        moved = ago >= 0 && (uint64_t)ago < p->now_ms ? p->now_ms - (uint64_t)ago : 0;
    }
    for (size_t i = 0; i < ATTEMPTS_MAX; i++)
        if (p->attempts[i].at_ms > moved && strcmp(p->attempts[i].vm_id, vm->id) == 0)
            moved = p->attempts[i].at_ms;
    return moved;
}

static void look(struct placement *p, struct view *view, const char *extra, uint64_t now_ms, int64_t wall_ms)
{
    p->now_ms = now_ms;
    p->wall_ms = wall_ms;
    if (!p->speeds)
        p->speeds = speeds_read(p->state);
    placement_view_make(view, p->state, p->fleet, p->speeds, extra, now_ms, view_moved, p);
    for (size_t i = 0; i < CHOICES_MAX; i++) {
        const struct choice *choice = &p->choices[i];
        struct state_vm vm;
        bool counts =
            choice->at_ms && now_ms - choice->at_ms < CHOICE_MS && (!extra || strcmp(choice->vm_id, extra) != 0);
        if (counts && state_vm(p->state, choice->vm_id, &vm))
            placement_view_reserve(view, p->state, choice->host, &vm);
    }
}

static void choice_note(struct placement *p, const char *vm_id, const char *host)
{
    size_t at = 0;
    while (at < CHOICES_MAX && strcmp(p->choices[at].vm_id, vm_id) != 0)
        at++;
    if (at == CHOICES_MAX) {
        at = p->next_choice;
        p->next_choice = (p->next_choice + 1) % CHOICES_MAX;
    }
    p->choices[at].at_ms = p->now_ms;
    snprintf(p->choices[at].vm_id, sizeof p->choices[at].vm_id, "%s", vm_id);
    snprintf(p->choices[at].host, sizeof p->choices[at].host, "%s", host);
}

static void plan_moves(struct placement *p, struct view *view, bool at_once)
{
    possible_plan(view, p->state, p->fleet, p->memory, &p->options.optimizer, at_once, p->plan);
}

bool placement_automatic(const struct placement *p)
{
    char value[16];
    if (!state_setting(p->state, "optimizer.automatic", value, sizeof value))
        return p->options.automatic;
    return strcmp(value, "true") == 0;
}

void placement_moved(struct placement *p, const char *vm_id, uint64_t now_ms)
{
    struct attempt *attempt = &p->attempts[p->next_attempt];
    p->next_attempt = (p->next_attempt + 1) % ATTEMPTS_MAX;
    attempt->at_ms = now_ms;
    snprintf(attempt->vm_id, sizeof attempt->vm_id, "%s", vm_id);
    p->moved_ms = now_ms;
    speeds_forget(p);
}

static Drover__OptimizerMove *move_message(const struct view *view, const struct optimizer_move *move)
{
    Drover__OptimizerMove *m = pb_new(&drover__optimizer_move__descriptor);
    pb_string(&m->vm, view->vms[move->vm].name);
    pb_string(&m->from_host, view->hosts[move->from].name);
    pb_string(&m->to_host, view->hosts[move->to].name);
    m->gain = move->gain;
    m->cost = move->cost_s;
    pb_string(&m->reason, move->reason);
    pb_string(&m->runner_up, move->runner_up);
    return m;
}

static void move_take(const struct view *view, const struct optimizer_move *move, struct placement_move *out)
{
    snprintf(out->vm_id, sizeof out->vm_id, "%s", view->vm_ids[move->vm]);
    snprintf(out->vm, sizeof out->vm, "%s", view->vms[move->vm].name);
    snprintf(out->from_host, sizeof out->from_host, "%s", view->hosts[move->from].name);
    snprintf(out->to_host, sizeof out->to_host, "%s", view->hosts[move->to].name);
    snprintf(out->reason, sizeof out->reason, "%s", move->reason);
}

static bool something_moves(struct placement *p)
{
    struct state_job_ref *jobs;
    size_t count = state_jobs_active(p->state, &jobs);
    bool moves = false;
    for (size_t i = 0; i < count && !moves; i++)
        moves = jobs[i].kind == DROVER__JOB_KIND__JOB_VM_MIGRATE ||
                jobs[i].kind == DROVER__JOB_KIND__JOB_OPTIMIZER_APPLY ||
                jobs[i].kind == DROVER__JOB_KIND__JOB_HOST_EVACUATE;
    free(jobs);
    return moves;
}

static void last_moves_push(struct placement *p, Drover__OptimizerMove *move)
{
    pb_free(p->last_moves[LAST_MOVES_MAX - 1]);
    memmove(p->last_moves + 1, p->last_moves, (LAST_MOVES_MAX - 1) * sizeof *p->last_moves);
    p->last_moves[0] = move;
}

bool placement_tick(struct placement *p, uint64_t now_ms, int64_t wall_ms, struct placement_move *out)
{
    struct view view;
    bool found = false;
    if (fleet_count(p->fleet) == 0)
        return false;
    look(p, &view, NULL, now_ms, wall_ms);
    optimizer_observe(p->memory, &p->options.optimizer, &view.input);
    bool settled = p->moved_ms == 0 || now_ms - p->moved_ms >= p->options.settle_ms;
    if (settled && view.up > 1 && placement_automatic(p) && !something_moves(p)) {
        plan_moves(p, &view, false);
        found = p->plan->move_count > 0;
    }
    if (found) {
        move_take(&view, &p->plan->moves[0], out);
        last_moves_push(p, move_message(&view, &p->plan->moves[0]));
    }
    placement_view_free(&view);
    return found;
}

/* A VM that runs goes where the preflight of this very move would refuse nothing. If there is no such host, the best of
 * the others is chosen all the same: its preflight says what is in the way and what to do about it. */
static size_t choose(struct placement *p, struct view *view, size_t vm, const char *exclude,
    const Drover__MigrationOptions *options, char *why)
{
    const struct optimizer_settings *settings = &p->options.optimizer;
    if (!exclude[0])
        return optimizer_place(settings, &view->input, vm, SIZE_MAX, why);
    size_t from = placement_view_host(view, exclude);
    possible_fill_vm(view, p->state, p->fleet, vm, options);
    size_t at = optimizer_place(settings, &view->input, vm, from, why);
    if (at == SIZE_MAX && view->vms[vm].possible) {
        view->vms[vm].possible = NULL;
        at = optimizer_place(settings, &view->input, vm, from, why);
    }
    return at;
}

int placement_choose(struct placement *p, const char *vm_id, const char *exclude,
    const Drover__MigrationOptions *options, uint64_t now_ms, struct err *err, char host[STATE_NAME_MAX],
    char reason[256])
{
    struct view view;
    char why[OPTIMIZER_TEXT_MAX];
    look(p, &view, vm_id, now_ms, p->wall_ms);
    size_t vm = placement_view_vm(&view, vm_id);
    int rc = -1;
    if (vm == SIZE_MAX) {
        err_set(err, ERR_NOT_FOUND, "the VM to be placed does not exist any more");
    } else if (view.up == 0) {
        err_set(err, ERR_UNAVAILABLE, "no host is up and takes VMs; see `drover host list`");
    } else {
        size_t at = choose(p, &view, vm, exclude, options, why);
        if (at == SIZE_MAX) {
            err_set(err, ERR_CAPACITY, "VM %s: %s", view.vms[vm].name, why);
        } else {
            snprintf(host, STATE_NAME_MAX, "%s", view.hosts[at].name);
            snprintf(reason, 256, "%.255s", why);
            choice_note(p, vm_id, host);
            rc = 0;
        }
    }
    placement_view_free(&view);
    return rc;
}

size_t placement_plan(struct placement *p, uint64_t now_ms, int64_t wall_ms, Drover__OptimizerPlanReply *reply,
    struct placement_move *moves, size_t max)
{
    struct view view;
    look(p, &view, NULL, now_ms, wall_ms);
    plan_moves(p, &view, true);
    size_t count = p->plan->move_count < max ? p->plan->move_count : max;
    for (size_t i = 0; i < count; i++) {
        move_take(&view, &p->plan->moves[i], &moves[i]);
        PB_ADD(reply, moves, move_message(&view, &p->plan->moves[i]));
    }
    reply->imbalance_before = p->plan->imbalance_before;
    reply->imbalance_after = p->plan->imbalance_after;
    pb_string(&reply->verdict, p->plan->verdict);
    placement_view_free(&view);
    return count;
}

static double utilization(const struct view *view, size_t host, enum resource resource)
{
    const struct optimizer_host *h = &view->hosts[host];
    double used = h->overhead[resource];
    for (size_t i = 0; i < view->input.vm_count; i++)
        if (view->vms[i].host == host)
            used += view->vms[i].demand[resource];
    return h->capacity[resource] > 0 ? used / h->capacity[resource] : 0;
}

static void status_host(struct placement *p, const struct view *view, size_t i, Drover__OptimizerStatusReply *reply)
{
    uint64_t hot_ms = 0;
    char verdict[64];
    Drover__OptimizerHost *host = pb_new(&drover__optimizer_host__descriptor);
    pb_string(&host->name, view->hosts[i].name);
    host->cpu_utilization = utilization(view, i, RESOURCE_CPU);
    host->memory_utilization = utilization(view, i, RESOURCE_MEMORY);
    host->iops_utilization = utilization(view, i, RESOURCE_IOPS);
    struct state_host known;
    bool maintenance = state_host(p->state, view->hosts[i].name, &known) && known.maintenance;
    const struct fleet_host *session = fleet_at(p->fleet, i);
    bool leaves = session->shutting_down && fleet_up(p->fleet, session, view->input.now_ms);
    enum optimizer_verdict v = optimizer_verdict(p->memory, &p->options.optimizer, &view->input, i, &hot_ms);
    if (v == VERDICT_WATCHING)
        snprintf(verdict, sizeof verdict, "watching (hot for %u s of %u)", (unsigned)(hot_ms / 1000),
            (unsigned)(p->options.optimizer.hold_ms / 1000));
    else
        snprintf(verdict, sizeof verdict, "%s",
            maintenance               ? "in maintenance"
            : leaves                  ? "being shut down"
            : !view->hosts[i].accepts ? "unreachable"
            : v == VERDICT_HOT        ? "hot"
                                      : "balanced");
    pb_string(&host->verdict, verdict);
    PB_ADD(reply, hosts, host);
}

void placement_status(struct placement *p, uint64_t now_ms, int64_t wall_ms, Drover__OptimizerStatusReply *reply)
{
    struct view view;
    look(p, &view, NULL, now_ms, wall_ms);
    reply->automatic = placement_automatic(p);
    reply->imbalance = optimizer_imbalance(&view.input);
    for (size_t i = 0; i < view.input.host_count; i++)
        status_host(p, &view, i, reply);
    for (size_t i = 0; i < LAST_MOVES_MAX && p->last_moves[i]; i++)
        PB_ADD(reply, last_moves, pb_copy(p->last_moves[i]));
    plan_moves(p, &view, false);
    pb_string(&reply->verdict, p->plan->move_count ? p->plan->moves[0].reason : p->plan->verdict);
    placement_view_free(&view);
}

double placement_imbalance(struct placement *p, uint64_t now_ms, int64_t wall_ms)
{
    struct view view;
    look(p, &view, NULL, now_ms, wall_ms);
    double imbalance = optimizer_imbalance(&view.input);
    placement_view_free(&view);
    return imbalance;
}
