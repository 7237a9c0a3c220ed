/* The plan: as long as something is hot, the best move is made on the view and the search begins again on what it left.
 * Because every step looks at all hot hosts, the plan ends only when no move is left that is worth it: a second run on
 * its result starts where this one stopped, and plans nothing. */
#include "optimizer/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* Marks what has to be relieved at the start of the plan. */
static void flags_init(host_heat *hot, const struct view *view, const struct optimizer_memory *memory,
    const struct optimizer_settings *settings, bool at_once)
{
    const struct optimizer_input *in = view->input;
    for (size_t h = 0; h < in->host_count; h++)
        for (int i = 0; i < RESOURCE_COUNT; i++) {
            enum resource r = (enum resource)i;
            uint64_t for_ms;
            enum heat heat = memory_heat(memory, settings, in->hosts[h].name, r, in->now_ms, &for_ms);
            if (heat == HEAT_HOT)
                hot[h][r] = HEAT_HOT;
            else if (at_once && view_utilization(view, h, r, 0) > settings->high[r])
                hot[h][r] = HEAT_WATCHED;
        }
}

/* What has fallen below `low` is hot no longer. */
static void flags_update(host_heat *hot, const struct view *view, const struct optimizer_settings *settings)
{
    for (size_t h = 0; h < view->input->host_count; h++)
        for (int r = 0; r < RESOURCE_COUNT; r++)
            if (view_utilization(view, h, (enum resource)r, 0) < settings->low[r])
                hot[h][r] = HEAT_COOL;
}

static bool flags_any(const host_heat *hot, size_t hosts)
{
    for (size_t h = 0; h < hosts; h++)
        for (int r = 0; r < RESOURCE_COUNT; r++)
            if (hot[h][r])
                return true;
    return false;
}

static void move_record(const struct view *view, const struct optimizer_settings *settings,
    const struct optimizer_memory *memory, const struct candidate best[2], size_t found, struct optimizer_plan *plan)
{
    const struct candidate *c = &best[0];
    struct optimizer_move *move = &plan->moves[plan->move_count];
    *move = (struct optimizer_move){.vm = c->vm, .from = c->from, .to = c->to, .gain = c->gain, .cost_s = c->cost_s};

    bool further = false;
    for (size_t m = 0; m < plan->move_count; m++)
        further = further || plan->moves[m].from == c->from;
    uint64_t for_ms;
    memory_heat(memory, settings, view->input->hosts[c->from].name, c->resource, view->input->now_ms, &for_ms);
    explain_move(view, c, further, for_ms, move->reason);
    explain_runner_up(view, settings, c, found > 1 ? &best[1] : NULL, move->runner_up);
    plan->move_count++;
}

void optimizer_plan(const struct optimizer_memory *memory, const struct optimizer_settings *settings,
    const struct optimizer_input *input, bool at_once, struct optimizer_plan *out)
{
    struct optimizer_settings clean = settings_clean(settings);
    struct view view;
    view_init(&view, input);
    host_heat *hot = mem_zalloc((input->host_count + 1) * sizeof *hot);
    memset(out, 0, sizeof *out);
    out->imbalance_before = view_imbalance(&view);

    flags_init(hot, &view, memory, &clean, at_once);
    flags_update(hot, &view, &clean);
    while (out->move_count < clean.max_moves && flags_any(hot, input->host_count)) {
        struct candidate best[2];
        size_t found = candidate_search(&view, &clean, hot, best);
        if (found == 0)
            break;
        move_record(&view, &clean, memory, best, found, out);
        view_move(&view, best[0].vm, best[0].to);
        flags_update(hot, &view, &clean);
    }
    out->imbalance_after = view_imbalance(&view);
    explain_rest(&view, &clean, hot, memory, out->move_count, clean.max_moves, out->verdict);

    free(hot);
    view_free(&view);
}
