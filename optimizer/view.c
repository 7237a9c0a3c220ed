/* The input made safe, and what can be worked out from it: utilization, imbalance, the gain of a move. */
#include "optimizer/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* Beyond these a figure is a mistake of whoever reported it: a million cores, an exabyte, a utilization of 10,000 %. */
#define AMOUNT_LIMIT      1e18
#define UTILIZATION_LIMIT 100.0
#define COST_UNKNOWN_S    10.0
#define COST_LIMIT_S      86400.0

static bool amount_sane(double amount)
{
    return amount >= 0 && amount <= AMOUNT_LIMIT; /* false for NaN */
}

static double amount_or_zero(double amount)
{
    return amount_sane(amount) ? amount : 0;
}

static void host_init(struct view_host *out, const struct optimizer_host *host)
{
    out->accepts = host->accepts;
    for (int r = 0; r < RESOURCE_COUNT; r++) {
        out->capacity[r] = amount_or_zero(host->capacity[r]);
        out->used[r] = amount_or_zero(host->overhead[r]);
        /* A capacity that makes no sense is not a capacity without limit: nothing more goes there. */
        if (!amount_sane(host->capacity[r]))
            out->accepts = false;
    }
}

static void vm_init(struct view_vm *out, const struct optimizer_vm *vm, size_t host_count)
{
    out->host = vm->host < host_count ? vm->host : SIZE_MAX;
    out->sane = true;
    for (int r = 0; r < RESOURCE_COUNT; r++) {
        out->demand[r] = amount_or_zero(vm->demand[r]);
        out->sane = out->sane && amount_sane(vm->demand[r]);
    }
    out->cost_s = amount_sane(vm->move_cost_s) ? fmin(vm->move_cost_s, COST_LIMIT_S) : COST_UNKNOWN_S;
    out->bytes = amount_or_zero(vm->move_bytes);
}

static void totals_init(struct view *view)
{
    for (int r = 0; r < RESOURCE_COUNT; r++)
        for (size_t h = 0; h < view->input->host_count; h++) {
            if (view->hosts[h].capacity[r] <= 0)
                continue;
            double u = view_utilization(view, h, (enum resource)r, 0);
            view->count[r]++;
            view->sum[r] += u;
            view->squares[r] += u * u;
        }
}

void view_init(struct view *view, const struct optimizer_input *input)
{
    memset(view, 0, sizeof *view);
    view->input = input;
    view->hosts = mem_zalloc((input->host_count + 1) * sizeof *view->hosts);
    view->vms = mem_zalloc((input->vm_count + 1) * sizeof *view->vms);
    for (size_t h = 0; h < input->host_count; h++)
        host_init(&view->hosts[h], &input->hosts[h]);
    for (size_t v = 0; v < input->vm_count; v++) {
        struct view_vm *vm = &view->vms[v];
        vm_init(vm, &input->vms[v], input->host_count);
        for (int r = 0; vm->host != SIZE_MAX && r < RESOURCE_COUNT; r++)
            view->hosts[vm->host].used[r] += vm->demand[r];
    }
    totals_init(view);
}

void view_free(struct view *view)
{
    free(view->hosts);
    free(view->vms);
}

double view_utilization(const struct view *view, size_t host, enum resource resource, double extra)
{
    const struct view_host *h = &view->hosts[host];
    if (h->capacity[resource] <= 0)
        return 0;
    return fmin(fmax(h->used[resource] + extra, 0) / h->capacity[resource], UTILIZATION_LIMIT);
}

static double deviation(size_t count, double sum, double squares)
{
    if (count == 0)
        return 0;
    double mean = sum / (double)count;
    return sqrt(fmax(squares / (double)count - mean * mean, 0));
}

double view_gain(const struct view *view, size_t vm, size_t to)
{
    const struct view_vm *v = &view->vms[vm];
    double gain = 0;
    for (int i = 0; i < RESOURCE_COUNT; i++) {
        enum resource r = (enum resource)i;
        double sum = view->sum[r], squares = view->squares[r];
        const size_t hosts[] = {v->host, to};
        const double extra[] = {-v->demand[r], v->demand[r]};
        for (int k = 0; k < 2; k++) {
            double before = view_utilization(view, hosts[k], r, 0),
                   after = view_utilization(view, hosts[k], r, extra[k]);
            sum += after - before;
            squares += after * after - before * before;
        }
        gain += deviation(view->count[r], view->sum[r], view->squares[r]) - deviation(view->count[r], sum, squares);
    }
    return gain;
}

double optimizer_link_bytes_per_s(const struct optimizer_input *input, size_t from, size_t to)
{
    for (size_t i = 0; i < input->link_count; i++) {
        const struct optimizer_link *link = &input->links[i];
        if (link->from == from && link->to == to && amount_sane(link->bytes_per_s) && link->bytes_per_s > 0)
            return link->bytes_per_s;
    }
    double a = amount_or_zero(input->hosts[from].link_bytes_per_s);
    double b = amount_or_zero(input->hosts[to].link_bytes_per_s);
    double said = a > 0 && b > 0 ? fmin(a, b) : fmax(a, b);
    return said > 0 ? said : amount_or_zero(input->link_bytes_per_s);
}

double view_cost_s(const struct view *view, size_t vm, size_t to)
{
    const struct view_vm *v = &view->vms[vm];
    double link = v->host == SIZE_MAX ? 0 : optimizer_link_bytes_per_s(view->input, v->host, to);
    return link > 0 ? fmin(v->cost_s + v->bytes / link, COST_LIMIT_S) : v->cost_s;
}

void view_move(struct view *view, size_t vm, size_t to)
{
    struct view_vm *v = &view->vms[vm];
    for (int r = 0; r < RESOURCE_COUNT; r++) {
        view->hosts[v->host].used[r] = fmax(view->hosts[v->host].used[r] - v->demand[r], 0);
        view->hosts[to].used[r] += v->demand[r];
        view->count[r] = 0;
        view->sum[r] = view->squares[r] = 0;
    }
    v->host = to;
    v->moved = true;
    totals_init(view); /* anew, so that rounding does not add up over a plan */
}

double view_imbalance(const struct view *view)
{
    double imbalance = 0;
    for (int r = 0; r < RESOURCE_COUNT; r++)
        imbalance += deviation(view->count[r], view->sum[r], view->squares[r]);
    return imbalance;
}

double optimizer_imbalance(const struct optimizer_input *input)
{
    struct view view;
    view_init(&view, input);
    double imbalance = view_imbalance(&view);
    view_free(&view);
    return imbalance;
}

void optimizer_defaults(struct optimizer_settings *out)
{
    *out = (struct optimizer_settings){
        .high = {[RESOURCE_CPU] = 0.80, [RESOURCE_MEMORY] = 0.90, [RESOURCE_IOPS] = 0.80},
        .low = {[RESOURCE_CPU] = 0.60, [RESOURCE_MEMORY] = 0.80, [RESOURCE_IOPS] = 0.60},
        .hold_ms = 20000,
        .rest_ms = 120000,
        .min_gain = 0.02,
        .max_moves = 8,
    };
}

struct optimizer_settings settings_clean(const struct optimizer_settings *settings)
{
    struct optimizer_settings clean = *settings, fallback;
    optimizer_defaults(&fallback);
    for (int r = 0; r < RESOURCE_COUNT; r++) {
        if (!isfinite(clean.high[r]) || clean.high[r] <= 0)
            clean.high[r] = fallback.high[r];
        if (!isfinite(clean.low[r]) || clean.low[r] < 0 || clean.low[r] > clean.high[r])
            clean.low[r] = fmin(fallback.low[r], clean.high[r]);
    }
    if (!isfinite(clean.min_gain) || clean.min_gain < 0)
        clean.min_gain = fallback.min_gain;
    if (clean.max_moves > OPTIMIZER_MOVES_MAX)
        clean.max_moves = OPTIMIZER_MOVES_MAX;
    return clean;
}
