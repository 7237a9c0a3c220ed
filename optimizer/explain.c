/* The sentences: why a move, why not the next best, why no more. They name the figures that decided. */
#include "optimizer/internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/format.h"

void explain_text(char *out, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(out, OPTIMIZER_TEXT_MAX, fmt, args);
    va_end(args);
}

const char *resource_name(enum resource resource)
{
    static const char *const names[] = {[RESOURCE_CPU] = "CPU", [RESOURCE_MEMORY] = "memory", [RESOURCE_IOPS] = "IOPS"};
    return names[resource];
}

const char *resource_amount(enum resource resource, double amount, char out[static AMOUNT_MAX])
{
    char bytes[FORMAT_MAX];
    switch (resource) {
    case RESOURCE_MEMORY:
        snprintf(out, AMOUNT_MAX, "%s", format_bytes((uint64_t)amount, bytes));
        break;
    case RESOURCE_IOPS:
        snprintf(out, AMOUNT_MAX, "%.0f IOPS", amount);
        break;
    case RESOURCE_CPU:
    case RESOURCE_COUNT:
        snprintf(out, AMOUNT_MAX, "%.2f cores", amount);
        break;
    }
    return out;
}

static int percent(double share)
{
    return (int)(share * 100 + 0.5);
}

/* Utilizations of the source and the target after the move. */
static int percent_from(const struct view *view, const struct candidate *c, enum resource r)
{
    return percent(view_utilization(view, c->from, r, -view->vms[c->vm].demand[r]));
}

static int percent_to(const struct view *view, const struct candidate *c, enum resource r)
{
    return percent(view_utilization(view, c->to, r, view->vms[c->vm].demand[r]));
}

void explain_move(const struct view *view, const struct candidate *c, bool further, uint64_t hot_for_ms, char *out)
{
    const struct optimizer_input *in = view->input;
    const char *from = in->hosts[c->from].name, *to = in->hosts[c->to].name, *vm = in->vms[c->vm].name;
    int now = percent(view_utilization(view, c->from, c->resource, 0));
    const char *what = resource_name(c->resource);
    char amount[AMOUNT_MAX], start[OPTIMIZER_TEXT_MAX];
    if (further)
        explain_text(start, "%.63s would still use %d %% of its %s", from, now, what);
    else if (hot_for_ms < 1000)
        explain_text(start, "%.63s uses %d %% of its %s", from, now, what);
    else
        explain_text(start, "%.63s has used %d %% of its %s for %" PRIu64 " s", from, now, what, hot_for_ms / 1000);
    explain_text(out, "%s; moving %.63s (%s) to %.63s brings it to %d %% and %.63s to %d %%", start, vm,
        resource_amount(c->resource, view->vms[c->vm].demand[c->resource], amount), to,
        percent_from(view, c, c->resource), to, percent_to(view, c, c->resource));
}

void explain_runner_up(const struct view *view, const struct optimizer_settings *settings, const struct candidate *move,
    const struct candidate *other, char *out)
{
    const struct optimizer_input *in = view->input;
    char why[OPTIMIZER_TEXT_MAX];
    if (!other) {
        explain_text(out, "no other move was possible");
        return;
    }
    if (other->from != move->from)
        explain_text(why, "would relieve %.63s, which comes later", in->hosts[other->from].name);
    else if (other->relief < move->relief)
        explain_text(why, "would bring %.63s only to %d %% (%d %% is wanted)", in->hosts[other->from].name,
            percent_from(view, other, move->resource), percent(settings->low[move->resource]));
    else if (other->cost_s > move->cost_s)
        explain_text(why, "would take %.1f s instead of %.1f s", other->cost_s, move->cost_s);
    else if (other->gain < move->gain)
        explain_text(why, "would even out less: it brings %.63s to %d %% and gains %.3f instead of %.3f",
            in->hosts[other->to].name, percent_to(view, other, move->resource), other->gain, move->gain);
    else
        explain_text(why, "is as good; the order of names decided");
    explain_text(out, "moving %.63s to %.63s %s", in->vms[other->vm].name, in->hosts[other->to].name, why);
}

/* The host and resource with the greatest utilization among those that `pick` says; SIZE_MAX when none. */
struct spot {
    size_t host;
    enum resource resource;
    double used;
};

static struct spot hottest(const struct view *view, const host_heat *only)
{
    struct spot spot = {.host = SIZE_MAX, .used = -1};
    for (size_t h = 0; h < view->input->host_count; h++)
        for (int i = 0; i < RESOURCE_COUNT; i++) {
            enum resource r = (enum resource)i;
            double used = view_utilization(view, h, r, 0);
            if (view->hosts[h].capacity[r] > 0 && (!only || only[h][r]) && used > spot.used)
                spot = (struct spot){h, r, used};
        }
    return spot;
}

/* What keeps the VMs of a hot host where they are. */
static void explain_stuck(
    const struct view *view, const struct optimizer_settings *settings, struct spot spot, char *out)
{
    const struct optimizer_input *in = view->input;
    size_t all = 0, fixed = 0, rest = 0, no_room = 0;
    for (size_t v = 0; v < in->vm_count; v++) {
        if (view->vms[v].host != spot.host)
            continue;
        all++;
        if (!in->vms[v].movable || !view->vms[v].sane) {
            fixed++;
        } else if (view->vms[v].moved || candidate_rests(view, settings, v)) {
            rest++;
        } else {
            bool room = false;
            for (size_t h = 0; h < in->host_count; h++)
                room = room || (h != spot.host && view->hosts[h].accepts && candidate_fits(view, settings, v, h));
            no_room += !room;
        }
    }
    explain_text(out,
        "%.63s uses %d %% of its %s, but no move is worth it: of "
        "its %zu VMs %zu cannot move, %zu moved lately, for %zu no "
        "host has room, %zu would gain too little",
        in->hosts[spot.host].name, percent(spot.used), resource_name(spot.resource), all, fixed, rest, no_room,
        all - fixed - rest - no_room);
}

void explain_rest(const struct view *view, const struct optimizer_settings *settings, const host_heat *hot,
    const struct optimizer_memory *memory, size_t moves, size_t max_moves, char *out)
{
    const struct optimizer_input *in = view->input;
    struct spot still = hottest(view, hot), top = hottest(view, NULL);
    uint64_t for_ms;
    if (top.host == SIZE_MAX) {
        explain_text(out, "nothing to balance: no host has reported what it can do");
    } else if (still.host != SIZE_MAX && moves > 0 && moves >= max_moves) {
        explain_text(out, "stopped at the limit of %zu move%s; %.63s would still use %d %% of its %s", max_moves,
            max_moves == 1 ? "" : "s", in->hosts[still.host].name, percent(still.used), resource_name(still.resource));
    } else if (still.host != SIZE_MAX) {
        explain_stuck(view, settings, still, out);
    } else if (moves > 0) {
        explain_text(out, "after %zu move%s no host is hot; the fullest is %.63s with %d %% of its %s", moves,
            moves == 1 ? "" : "s", in->hosts[top.host].name, percent(top.used), resource_name(top.resource));
    } else if (top.used > settings->high[top.resource]) {
        memory_heat(memory, settings, in->hosts[top.host].name, top.resource, in->now_ms, &for_ms);
        explain_text(out, "watching %.63s: %d %% of its %s for %" PRIu64 " s; it is hot after %" PRIu64 " s",
            in->hosts[top.host].name, percent(top.used), resource_name(top.resource), for_ms / 1000,
            settings->hold_ms / 1000);
    } else {
        explain_text(out, "nothing to do: no host is hot; the fullest is %.63s with %d %% of its %s",
            in->hosts[top.host].name, percent(top.used), resource_name(top.resource));
    }
}
